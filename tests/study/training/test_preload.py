"""What a process imports before it has a stage; each in a process of its own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from study.cli import main


def test_performing_a_stage_is_there() -> None:
    _run(
        "import sys, study.training.preload\n"
        "assert {'study.training.train_stage', 'timm', 'albumentations'} <= sys.modules.keys()"
    )


def test_no_gpu_is_asked_for() -> None:
    """A process that asked keeps to what it could see then, which is not yet its share."""
    _run(
        "import sys, torch\n"
        "def asked(*_): sys.exit('asked')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked\n"
        "torch.accelerator.is_available = torch.accelerator.device_count = asked\n"
        "torch.accelerator.current_accelerator = asked\n"
        "import study.training.preload\n"
        "assert 'study.training.train_stage' in sys.modules"
    )


def test_what_cannot_be_imported_leaves_the_process_alive() -> None:
    _run(
        "import sys; sys.modules['timm'] = None; import study.training.preload\n"
        "assert 'study.training.train_stage' not in sys.modules"
    )


@pytest.mark.parametrize(("workers", "imported"), [(1, True), (2, False)])
def test_a_run_has_it_imported_where_its_processes_are_reused(
    workers: int, imported: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str | None] = []

    def cluster(*, preload: str | None) -> NoReturn:
        asked.append(preload)
        raise InterruptedError

    monkeypatch.setattr("study.run.LocalCluster", cluster)
    with pytest.raises(InterruptedError):
        main._run({"resources": {"workers": workers}}, "spec.yaml", tmp_path, tmp_path, None)
    [name] = asked
    assert (name is not None and find_spec(name) is not None) == imported


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
