"""Imports of a process before it gets a stage; each in a separate process."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from study.cli.running import run_document


def test_the_training_modules_are_imported() -> None:
    _run(
        "import sys, study.training.preload\n"
        "assert {'study.training.train_stage', 'timm', 'albumentations'} <= sys.modules.keys()"
    )


def test_no_gpu_is_queried() -> None:
    """A process that queried the GPUs keeps that result, which may differ from its later share."""
    _run(
        "import sys, torch\n"
        "def fail(*_): sys.exit('GPU queried')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = fail\n"
        "torch.accelerator.is_available = torch.accelerator.device_count = fail\n"
        "torch.accelerator.current_accelerator = fail\n"
        "import study.training.preload\n"
        "assert 'study.training.train_stage' in sys.modules"
    )


def test_a_failed_import_does_not_end_the_process() -> None:
    _run(
        "import sys; sys.modules['timm'] = None; import study.training.preload\n"
        "assert 'study.training.train_stage' not in sys.modules"
    )


@pytest.mark.parametrize(("workers", "imported"), [(1, True), (2, False)])
def test_a_run_preloads_the_module_if_its_processes_are_reused(
    workers: int, imported: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preloaded: list[str | None] = []

    def cluster(*, preload: str | None) -> NoReturn:
        preloaded.append(preload)
        raise InterruptedError

    monkeypatch.setattr("study.run.LocalCluster", cluster)
    with pytest.raises(InterruptedError):
        run_document({"resources": {"workers": workers}}, "spec.yaml", tmp_path, tmp_path, None)
    [name] = preloaded
    assert (name is not None and find_spec(name) is not None) == imported


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
