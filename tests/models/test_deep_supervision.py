"""Heads for maps within the decoder."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.architectures import ARCHITECTURES
from models.architectures.parts import Blueprint
from models.build import build
from models.catalog.registry import problem
from models.losses.functions import weighted_sum
from models.network import Network
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs

SUPERVISED = [name for name, row in ARCHITECTURES.items() if row.levels]
OTHERS = [name for name, row in ARCHITECTURES.items() if not row.levels]
HEIGHT, WIDTH = 64, 96


def make_network(architecture: str, *, deep: bool = True, outputs: int = 2) -> Network:
    torch.manual_seed(0)
    backbone = "own" if ARCHITECTURES[architecture].own_encoder else "resnet18"
    blueprint = Blueprint(
        architecture=architecture, backbone=backbone, channels=1, outputs=outputs, deep_supervision=deep
    )
    return build(blueprint)


def images(height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    return torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", SUPERVISED)
def test_each_level_has_the_enlarged_logits_of_its_map(architecture: str) -> None:
    network = make_network(architecture).eval()
    assert network.decoder is not None
    assert network.auxiliary_heads is not None
    levels = list(network.decoder.get_submodule(ARCHITECTURES[architecture].levels))  # type: ignore[call-overload]
    maps: list[Tensor] = []
    for level in levels:
        level.register_forward_hook(lambda _, __, output: maps.append(output))
    deep = network(images(), deep=True)
    assert len(deep) == len(network.auxiliary_heads) + 1 == min(len(levels), 4)
    torch.testing.assert_close(deep[0], network(images()))
    for number, head in enumerate(network.auxiliary_heads, start=1):
        expected = F.interpolate(head(maps[len(levels) - 1 - number]), (HEIGHT, WIDTH), mode="bilinear")
        torch.testing.assert_close(deep[number], expected)


@pytest.mark.parametrize("architecture", SUPERVISED)
def test_encoder_decoder_and_head_have_the_same_initial_weights_without_it(architecture: str) -> None:
    deep, plain = make_network(architecture).state_dict(), make_network(architecture, deep=False).state_dict()
    assert {name for name in deep if name not in plain} == {
        name for name in deep if name.startswith("auxiliary_heads.")
    }
    assert all(torch.equal(tensor, deep[name]) for name, tensor in plain.items())


def test_images_of_any_size_have_levels_of_their_size() -> None:
    assert make_network("unet_plain").eval()(images(50, 70), deep=True).shape == (4, 2, 2, 50, 70)


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_loss_is_the_mean_over_levels_with_halved_weights(exclusive: bool) -> None:
    loss = {"cross_entropy": 1.0, "dice": 0.5} if exclusive else {"binary_cross_entropy": 1.0, "dice": 0.5}
    settings = SegmentationSettings(loss=loss, deep_supervision=True)
    task = make_task(settings, Outputs(names=("lung", "heart"), exclusive=exclusive))
    network = make_network("unet", outputs=task.head_channels()).eval()
    generator = torch.Generator().manual_seed(2)
    shape = (2, HEIGHT, WIDTH) if exclusive else (2, 2, HEIGHT, WIDTH)
    target = torch.randint(0, 3 if exclusive else 2, shape, generator=generator, dtype=torch.uint8)
    levels = network(images(), deep=True)
    costs = [weighted_sum(settings.loss, level, target, exclusive=exclusive) for level in levels]
    expected = (costs[0] + costs[1] / 2 + costs[2] / 4 + costs[3] / 8) / 1.875
    actual = task.loss(network, Batch(images=images(), target=target))
    torch.testing.assert_close(actual, expected)
    actual.backward()
    assert all(parameter.grad is not None for parameter in network.parameters() if parameter.requires_grad)
    assert all(parameter.requires_grad for parameter in network.auxiliary_heads.parameters())  # type: ignore[union-attr]


def test_a_copy_keeps_its_own_maps() -> None:
    network = make_network("unet").eval()
    copied = copy.deepcopy(network)
    torch.testing.assert_close(copied(images(), deep=True), network(images(), deep=True))


def test_a_network_without_heads_has_no_levels() -> None:
    with pytest.raises(ValueError, match="no auxiliary heads; allowed: with deep_supervision"):
        make_network("unet", deep=False).eval()(images(), deep=True)


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_architectures_are_refused_with_those_that_have_levels(architecture: str) -> None:
    row = ARCHITECTURES[architecture]
    backbone = "own" if row.own_encoder else "tu-test_vit" if row.features == "plain" else "resnet18"
    message = problem(architecture, backbone, shape=(160, 160), deep_supervision=True)
    assert message == (
        f"deep_supervision is true under {architecture}; allowed: with {', '.join(SUPERVISED)}; choose one of these or "
        "leave it out"
    )
