"""Whether a network can train on one image, and whether files fit its encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from models.architectures.parts import Blueprint
from models.build import build
from models.weights.fit import FileFit, file_fits, takes_one_image

RESNET = Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=1, shape=(64, 64))


def fit_of(file: Path, network: Blueprint, allow: tuple[str, ...]) -> FileFit:
    (fit,) = file_fits(file, (network,), allow)
    return fit


def test_a_file_is_checked_again_after_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    tensors = build(RESNET).encoder.state_dict()
    torch.save(tensors, file)
    assert fit_of(file, RESNET, ()).problem is None
    torch.save({**tensors, "conv1.weight": torch.zeros(1)}, file)
    assert "1 of another shape (conv1.weight (1,) instead of (64, 1, 7, 7))" in str(fit_of(file, RESNET, ()).problem)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_detected_in_every_data_type(
    kind: torch.dtype, value: float, tmp_path: Path
) -> None:
    tensors = {name: tensor.to(kind).contiguous() if tensor.is_floating_point() else tensor
               for name, tensor in build(RESNET).encoder.state_dict().items()}  # fmt: skip
    tensors["layer1.0.bn1.weight"][3] = value
    save_torch(tensors, tmp_path / "x")
    assert fit_of(tmp_path / "x", RESNET, ()).non_finite == "layer1.0.bn1.weight"


@pytest.mark.parametrize(("value", "detected"), [(1e300, True), (-3.5e38, True), (3.4028235e38, False)])
def test_float64_values_that_are_infinite_in_float32_are_detected(value: float, detected: bool, tmp_path: Path) -> None:
    tensors = {name: tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()
               for name, tensor in build(RESNET).encoder.state_dict().items()}  # fmt: skip
    tensors["layer1.0.bn1.weight"][3] = value
    save_file(tensors, tmp_path / "x")
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(value)) == detected
    assert fit_of(tmp_path / "x", RESNET, ()).non_finite == ("layer1.0.bn1.weight" if detected else None)


@pytest.mark.parametrize(
    ("backbone", "size", "enough"),
    [("resnet18", 32, False), ("resnet18", 64, True), ("tu-resnest14d", 128, False), ("tu-convnext_atto", 32, True)],
)
def test_one_image_is_enough_if_nothing_is_normalised_over_a_single_value(
    backbone: str, size: int, enough: bool
) -> None:
    single = Blueprint(architecture=None, backbone=backbone, channels=1, outputs=1, shape=(size, size))
    assert takes_one_image(single) == enough


def test_one_image_is_enough_for_a_frozen_encoder() -> None:
    single = Blueprint(architecture=None, backbone="resnet18", channels=1, outputs=1, shape=(32, 32))
    assert takes_one_image(single, ("encoder",))
