"""Files of initial weights are checked for every use in the study file, and read once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.architectures.parts import Blueprint
from models.build import build
from study.errors import ConfigError
from tests.support.documents import Document, base, planned

BACKBONE = "tu-lcnet_050"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    network = build(Blueprint(architecture="unet", backbone=BACKBONE, channels=1, outputs=1, shape=(64, 64)))
    return network.encoder.state_dict()


def including(*files: Path) -> Document:
    rule = {"architecture": "unet", "backbone": BACKBONE, "pathway": "none"}
    rules = [rule | {"initial_weights": {"file": str(file)}} for file in files]
    return base({"compare.include": rules, "compare.baseline": [], "compare.backbone": [BACKBONE]})


def problems(document: Document, folder: Path) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as refused:
        planned(document, folder / "cache")
    return [(problem.path, problem.message) for problem in refused.value.problems]


@pytest.mark.parametrize("first", [0, 1])
def test_every_file_of_include_is_checked(first: int, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(tensors, tmp_path / "sound.pth")
    files = [tmp_path / "absent.pth", tmp_path / "sound.pth"]
    ((path, message),) = problems(including(files[first], files[1 - first]), tmp_path)
    assert path == f"compare.include[{first}].initial_weights.file"
    assert message.startswith(f"{tmp_path}/absent.pth cannot be read (no such file); allowed: ")


@pytest.mark.parametrize("first", [0, 1])
def test_files_of_include_with_missing_tensors_are_refused(
    first: int, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "sound.pth")
    torch.save(dict(list(tensors.items())[3:]), tmp_path / "cut.pth")
    files = [tmp_path / "cut.pth", tmp_path / "sound.pth"]
    ((path, message),) = problems(including(files[first], files[1 - first]), tmp_path)
    assert path == f"compare.include[{first}].initial_weights.file"
    assert "tensors 3 missing" in message


def test_missing_published_weights_of_include_are_refused_with_their_rule(tmp_path: Path) -> None:
    rule = {"architecture": "unet", "backbone": BACKBONE, "pathway": "none", "initial_weights": "imagenett"}
    ((path, message),) = problems(base({"compare.include": [rule], "compare.baseline": []}), tmp_path)
    assert path == "compare.include[0].initial_weights"
    assert "imagenett; allowed: random, imagenet" in message


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_sparse_and_meta_tensors_are_refused(kind: str, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    name = "model.conv_stem.weight"
    changed = tensors[name].to_sparse() if kind == "sparse" else tensors[name].to("meta")
    torch.save(tensors | {name: changed}, tmp_path / "x.pth")
    document = base({"compare.initial_weights": [{"file": str(tmp_path / "x.pth")}], "compare.backbone": [BACKBONE]})
    ((path, message),) = problems(document, tmp_path)
    assert path == "compare.initial_weights[0].file"
    assert f"1 sparse, nested, quantized or without values ({name})" in message
