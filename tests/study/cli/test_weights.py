"""The command `weights`, which shows how a weights file is loaded into a backbone."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from models.encoders.vision import timm
from study.cli.main import main

Capture = pytest.CaptureFixture[str]


def run_weights(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["weights", *map(str, arguments)])
    return int(exit_info.value.code or 0)


@pytest.fixture
def dino(tmp_path: Path) -> Path:
    """A checkpoint in the layout of DINO."""
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    teacher = {f"backbone.{name}": tensor for name, tensor in state.items()} | {"head.mlp.0.weight": torch.zeros(2, 2)}
    torch.save({"teacher": teacher, "student": {}, "epoch": 1, "args": argparse.Namespace(lr=0.1)}, tmp_path / "d.pth")
    return tmp_path / "d.pth"


def test_every_tensor_of_the_file_is_listed(dino: Path, capsys: Capture) -> None:
    assert run_weights(dino, "--backbone", "tu-test_vit", "--channels", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rule            torch file with the tensors in `teacher`"
    assert "rule            prefix `backbone.` removed" in lines
    assert "rule            `backbone.patch_embed.proj.weight` adapted from 3 to 1 channels" in lines
    assert "matched         backbone.cls_token -> model.cls_token" in lines
    assert "left out        head.mlp.0.weight (heads)" in lines
    assert lines[-1] == "result          fits"
    printed_words = {word for line in lines for word in line.split()}
    assert torch.load(dino, weights_only=False)["teacher"].keys() <= printed_words


def test_incompatible_file_is_listed_with_exit_status_2(dino: Path, capsys: Capture) -> None:
    assert run_weights(dino, "--backbone", "resnet18", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["fits"] is False
    assert len(report["faults"]["missing"]) == 100
    assert report["left_out"] == {"heads": ["head.mlp.0.weight"]}
    assert len(report["faults"]["unknown"]) > 50
    assert run_weights(dino, "--backbone", "resnet18", "--allow", "*") == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_file_with_non_finite_values_is_rejected(value: float, dino: Path, capsys: Capture) -> None:
    content = torch.load(dino, weights_only=False)
    content["teacher"]["backbone.cls_token"][0] = value
    torch.save(content, dino)
    assert run_weights(dino, "--backbone", "tu-test_vit") == 2
    assert capsys.readouterr().out.splitlines()[-1] == "result          holds NaN or infinity in backbone.cls_token"
    assert run_weights(dino, "--backbone", "tu-test_vit", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["fits"], report["faults"], report["non_finite"]) == (False, {}, "backbone.cls_token")


@pytest.mark.parametrize(("arguments", "message"), [
    (("absent.pth", "--backbone", "resnet18"), "study weights: absent.pth cannot be read (no such file); allowed: "),
    (("FILE", "--backbone", "resnet"), "study weights: --backbone: is resnet; allowed: "),
    (("FILE", "--backbone", "resnet18", "--architecture", "unett"), "study weights: --architecture: is unett; allowed"),
    (("FILE", "--backbone", "resnet18", "--architecture", "dpt"), "study weights: --backbone: is resnet18 under dpt; "),
])  # fmt: skip
def test_invalid_arguments_are_rejected_in_one_line(
    arguments: tuple[str, ...], message: str, dino: Path, capsys: Capture
) -> None:
    assert run_weights(*(dino if argument == "FILE" else argument for argument in arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)
