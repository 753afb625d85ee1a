"""What a process imports before it has a stage; each in a process of its own."""

import subprocess
import sys
from pathlib import Path


def test_performing_a_stage_is_there() -> None:
    _run("import sys, study.warm; assert {'study.stage', 'timm', 'albumentations'} <= sys.modules.keys()")


def test_no_gpu_is_asked_for() -> None:
    """A process that asked keeps to what it could see then, which is not yet its share."""
    _run(
        "import sys, torch\n"
        "def asked(*_): sys.exit('asked')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = asked\n"
        "import study.warm\n"
        "assert 'study.stage' in sys.modules"
    )


def test_what_cannot_be_imported_leaves_the_process_alive() -> None:
    _run("import sys; sys.modules['timm'] = None; import study.warm; assert 'study.stage' not in sys.modules")


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
