"""How networks lie in memory, and that it changes no result."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.build import Blueprint, build
from models.memory_format import set_memory_format
from models.network import Network


def made(backbone: str, size: int | None, channels: int = 1) -> Network:
    torch.manual_seed(0)
    return build(
        Blueprint(architecture="unet", backbone=backbone, channels=channels, outputs=2, shape=size and (size, size))
    )


def kernels(network: Network) -> dict[str, nn.Conv2d]:
    """Those whose layout can be told: of one channel, or of one pixel, both are the same."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    return {name: layer for name, layer in layers.items() if layer.in_channels > 1 and max(layer.kernel_size) > 1}


def channels_apart(network: Network) -> set[str]:
    return {name for name, layer in kernels(network).items() if layer.weight.is_contiguous()}


def test_large_kernels_that_make_maps_of_at_most_4_px_keep_each_channels_pixels_together() -> None:
    deepest = {f"encoder.layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)}
    third = {name.replace("layer4", "layer3") for name in deepest} - {"encoder.layer3.0.conv1"}  # its kernel is small
    first_decoded = {"decoder.blocks.0.conv1.0", "decoder.blocks.0.conv2.0"}
    assert channels_apart(made("resnet18", 64)) == deepest | third | first_decoded
    assert channels_apart(made("resnet18", 128)) == deepest
    assert channels_apart(made("resnet18", 160)) == set()
    assert channels_apart(made("resnet18", None)) == set()


@pytest.mark.parametrize(
    ("layer", "apart"),
    [
        (nn.Conv2d(256, 256, 3, padding=1), True),
        (nn.Conv2d(512, 1024, 1), False),
        (nn.Conv2d(2048, 2048, 3, padding=1, groups=32), False),
    ],
    ids=["dense", "pointwise", "grouped"],
)
def test_grouped_and_pointwise_kernels_keep_each_pixels_channels_together(layer: nn.Conv2d, apart: bool) -> None:
    set_memory_format(layer, {layer: 4})
    maps = layer(torch.rand(2, layer.in_channels, 4, 4).contiguous(memory_format=torch.channels_last))
    assert maps.is_contiguous(memory_format=torch.contiguous_format if apart else torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_lie_as_the_kernels_do_that_make_them(channels: int) -> None:
    network = made("resnet18", 64, channels)
    for one in (network, copy.deepcopy(network)):
        seen = maps_of(one, torch.rand(2, 64, 64, channels).permute(0, 3, 1, 2))  # as files have them
        for layer in kernels(one).values():
            last = layer.weight.is_contiguous(memory_format=torch.channels_last)
            assert seen[layer].is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert seen[one.encoder.conv1].is_contiguous(memory_format=torch.channels_last)


def maps_of(network: Network, images: Tensor) -> dict[nn.Module, Tensor]:
    seen = {}

    def note(layer: nn.Module, _: Any, maps: Tensor) -> None:  # noqa: ANN401
        seen[layer] = maps

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    network(images)
    return seen


def loss_of(network: Network) -> Tensor:
    torch.manual_seed(1)
    loss: Tensor = network(torch.rand(4, 1, 64, 64).to(network.mean.dtype)).square().mean()
    return loss


@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d", "vgg11"])
def test_the_layout_changes_neither_loss_nor_gradient(backbone: str) -> None:
    found = []
    for size in (64, None):
        network = made(backbone, size).double()  # in float32 a rounding flips a ReLU
        loss = loss_of(network)
        loss.backward()
        found.append((loss.item(), [one.grad for one in network.parameters() if one.grad is not None]))
    (mixed, gradients), (together, others) = found
    assert mixed == pytest.approx(together, rel=1e-9)
    for one, other in zip(gradients, others, strict=True):
        assert float((one - other).norm()) <= 1e-9 * float(other.norm()) + 1e-12


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d", "vgg11", "densenet121"])
def test_the_layout_changes_no_loss_in_float32(backbone: str) -> None:
    mixed, together = (loss_of(made(backbone, size)).item() for size in (64, None))
    assert mixed == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2}, {"dilation": 2}, {"groups": 32}, {"kernel_size": 1, "padding": 0}],
    ids=["dense", "strided", "dilated", "grouped", "pointwise"],
)
def test_a_convolution_gives_the_same_maps_and_gradients_in_either_layout(settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer, maps = nn.Conv2d(256, 256, **{"kernel_size": 3, "padding": 1} | settings), torch.randn(8, 256, 4, 4)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        own, images = copy.deepcopy(layer).to(memory_format=layout), maps.to(memory_format=layout, copy=True)
        answer = own(images.requires_grad_())
        answer.square().sum().backward()
        assert answer.is_contiguous(memory_format=layout)
        assert own.weight.grad is not None
        assert images.grad is not None
        found.append([answer.detach(), own.weight.grad, images.grad])
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


def test_loaded_weights_lie_as_those_before() -> None:
    network = made("resnet18", 64)
    before = channels_apart(network)
    network.load_state_dict(made("resnet18", None).state_dict())
    assert channels_apart(network) == before
