import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.encoders.vision import declare_missing_schemas


def test_the_libraries_import_in_a_fresh_process_with_warnings_as_errors() -> None:
    code = "from models.encoders.vision import smp, timm; import torchvision; assert torchvision.models.resnet18"
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], cwd=Path(__file__).parents[3], check=True)


@pytest.mark.parametrize("name", ["nms", "qnms"])
def test_both_schemas_exist_once(name: str) -> None:
    overload = getattr(torch.ops.torchvision, name)
    assert overload.overloads() == ["default"]


def test_declaring_twice_changes_nothing() -> None:
    declare_missing_schemas()
    assert torch.ops.torchvision.nms.overloads() == ["default"]
