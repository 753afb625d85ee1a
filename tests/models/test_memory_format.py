"""The memory format of networks, which changes no result."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.build import Blueprint, build
from models.memory_format import set_memory_format
from models.network import Network


def make_network(backbone: str, size: int | None, channels: int = 1) -> Network:
    torch.manual_seed(0)
    return build(
        Blueprint(architecture="unet", backbone=backbone, channels=channels, outputs=2, shape=size and (size, size))
    )


def kernels(network: Network) -> dict[str, nn.Conv2d]:
    """Return kernels whose memory format is unambiguous: with one channel or one pixel, both formats are equal."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    return {name: layer for name, layer in layers.items() if layer.in_channels > 1 and max(layer.kernel_size) > 1}


def contiguous_layers(network: Network) -> set[str]:
    return {name for name, layer in kernels(network).items() if layer.weight.is_contiguous()}


def test_large_kernels_with_maps_of_at_most_4_px_are_contiguous() -> None:
    deepest = {f"encoder.layer4.{block}.conv{number}" for block in (0, 1) for number in (1, 2)}
    third = {name.replace("layer4", "layer3") for name in deepest} - {"encoder.layer3.0.conv1"}  # its kernel is small
    first_decoded = {"decoder.blocks.0.conv1.0", "decoder.blocks.0.conv2.0"}
    assert contiguous_layers(make_network("resnet18", 64)) == deepest | third | first_decoded
    assert contiguous_layers(make_network("resnet18", 128)) == deepest
    assert contiguous_layers(make_network("resnet18", 160)) == set()
    assert contiguous_layers(make_network("resnet18", None)) == set()


@pytest.mark.parametrize(
    ("layer", "contiguous"),
    [
        (nn.Conv2d(256, 256, 3, padding=1), True),
        (nn.Conv2d(512, 1024, 1), False),
        (nn.Conv2d(2048, 2048, 3, padding=1, groups=32), False),
    ],
    ids=["dense", "pointwise", "grouped"],
)
def test_grouped_and_pointwise_kernels_are_channels_last(layer: nn.Conv2d, contiguous: bool) -> None:
    set_memory_format(layer, {layer: 4})
    maps = layer(torch.rand(2, layer.in_channels, 4, 4).contiguous(memory_format=torch.channels_last))
    assert maps.is_contiguous(memory_format=torch.contiguous_format if contiguous else torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_have_the_memory_format_of_their_kernels(channels: int) -> None:
    network = make_network("resnet18", 64, channels)
    for model in (network, copy.deepcopy(network)):
        maps = maps_of(model, torch.rand(2, 64, 64, channels).permute(0, 3, 1, 2))  # channels last, as in files
        for layer in kernels(model).values():
            last = layer.weight.is_contiguous(memory_format=torch.channels_last)
            assert maps[layer].is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert maps[model.encoder.conv1].is_contiguous(memory_format=torch.channels_last)


def maps_of(network: Network, images: Tensor) -> dict[nn.Module, Tensor]:
    maps_by_layer = {}

    def note(layer: nn.Module, _: Any, maps: Tensor) -> None:  # noqa: ANN401
        maps_by_layer[layer] = maps

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    network(images)
    return maps_by_layer


def loss_of(network: Network) -> Tensor:
    torch.manual_seed(1)
    loss: Tensor = network(torch.rand(4, 1, 64, 64).to(network.mean.dtype)).square().mean()
    return loss


@pytest.mark.parametrize("backbone", ["resnet18", "resnext50_32x4d", "vgg11"])
def test_the_memory_format_changes_neither_loss_nor_gradient(backbone: str) -> None:
    results = []
    for size in (64, None):
        network = make_network(backbone, size).double()  # in float32 a rounding error flips a ReLU
        loss = loss_of(network)
        loss.backward()
        results.append(
            (loss.item(), [parameter.grad for parameter in network.parameters() if parameter.grad is not None])
        )
    (mixed, gradients), (contiguous, others) = results
    assert mixed == pytest.approx(contiguous, rel=1e-9)
    for gradient, other in zip(gradients, others, strict=True):
        assert float((gradient - other).norm()) <= 1e-9 * float(other.norm()) + 1e-12


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnext50_32x4d", "vgg11", "densenet121"])
def test_the_memory_format_does_not_change_the_loss_in_float32(backbone: str) -> None:
    mixed, contiguous = (loss_of(make_network(backbone, size)).item() for size in (64, None))
    assert mixed == pytest.approx(contiguous, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2}, {"dilation": 2}, {"groups": 32}, {"kernel_size": 1, "padding": 0}],
    ids=["dense", "strided", "dilated", "grouped", "pointwise"],
)
def test_a_convolution_gives_the_same_maps_and_gradients_in_both_formats(settings: dict[str, int]) -> None:
    torch.manual_seed(0)
    layer, maps = nn.Conv2d(256, 256, **{"kernel_size": 3, "padding": 1} | settings), torch.randn(8, 256, 4, 4)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        convolution, images = copy.deepcopy(layer).to(memory_format=layout), maps.to(memory_format=layout, copy=True)
        output = convolution(images.requires_grad_())
        output.square().sum().backward()
        assert output.is_contiguous(memory_format=layout)
        assert convolution.weight.grad is not None
        assert images.grad is not None
        results.append([output.detach(), convolution.weight.grad, images.grad])
    for first, second in zip(*results, strict=True):
        assert float((first - second).norm()) <= 1e-5 * float(second.norm())


def test_loaded_weights_keep_the_memory_format() -> None:
    network = make_network("resnet18", 64)
    before = contiguous_layers(network)
    network.load_state_dict(make_network("resnet18", None).state_dict())
    assert contiguous_layers(network) == before
