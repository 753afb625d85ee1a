"""Each way of upsampling is what it claims, in every architecture that offers it."""

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.architectures import ARCHITECTURES
from models.build import Blueprint, build
from models.catalog.registry import probe_size, problem
from models.network import Network
from models.settings import Upsampling

WAYS = [(name, way) for name, row in ARCHITECTURES.items() for way in row.upsampling if row.features == "pyramid"]
CHOICES = [(name, way) for name, way in WAYS if len(ARCHITECTURES[name].upsampling) > 1]


def made(architecture: str, way: Upsampling | None) -> Network:
    torch.manual_seed(0)
    backbone = "own" if ARCHITECTURES[architecture].own_encoder else "resnet18"
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=2, upsampling=way))


def shapes(network: Network) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def transposed(network: Network) -> list[nn.ConvTranspose2d]:
    assert network.decoder is not None
    return [layer for layer in network.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]


@pytest.mark.parametrize(("architecture", "way"), WAYS)
def test_every_way_offered_can_be_built_and_answers_at_the_images_size(architecture: str, way: Upsampling) -> None:
    backbone = "own" if ARCHITECTURES[architecture].own_encoder else "resnet18"
    size = probe_size(architecture, backbone)
    assert problem(architecture, backbone, shape=(size, size), upsampling=way) is None
    assert made(architecture, way).eval()(torch.rand(1, 1, size, size)).shape == (1, 2, size, size)


@pytest.mark.parametrize("architecture", sorted({name for name, _ in WAYS}))
def test_left_out_it_is_the_first_way_of_the_table(architecture: str) -> None:
    own, first = made(architecture, None), made(architecture, ARCHITECTURES[architecture].upsampling[0])
    images = torch.rand(
        1, 1, *[probe_size(architecture, "own" if ARCHITECTURES[architecture].own_encoder else "resnet18")] * 2
    )
    assert shapes(own) == shapes(first)
    assert torch.equal(own.eval()(images), first.eval()(images))


@pytest.mark.parametrize(("architecture", "way"), [*CHOICES, ("linknet", "transposed")])
def test_only_a_transposed_decoder_learns_how_to_upsample(architecture: str, way: Upsampling) -> None:
    assert bool(transposed(made(architecture, way))) == (way == "transposed")


@pytest.mark.parametrize("architecture", ["unet", "unet_plain", "xnet"])
def test_transposed_convolutions_double_once_a_level_and_train(architecture: str) -> None:
    network = made(architecture, "transposed")
    layers = transposed(network)
    assert len(layers) == 4 + (architecture != "unet_plain")
    assert {(layer.kernel_size, layer.stride) for layer in layers} == {((2, 2), (2, 2))}
    network(torch.rand(2, 1, 64, 64)).square().sum().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.any() for layer in layers)


class Interpolations(TorchDispatchMode):
    """Notes which interpolations run."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: set[str] = set()

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        name = str(function).split(".")[1]
        if name.startswith("upsample_"):
            self.ways.add(name.removeprefix("upsample_").removesuffix("2d"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("architecture", "way"), [pair for pair in CHOICES if pair[1] != "transposed"])
def test_an_interpolated_decoder_runs_that_interpolation_and_no_other(architecture: str, way: Upsampling) -> None:
    network = made(architecture, way).eval()
    assert network.decoder is not None
    with torch.no_grad():
        features = network.encoder(torch.rand(1, 1, 128, 128))
        with Interpolations() as seen:
            network.decoder(features)
    # What FPN's and PAN's pyramids are resized by beside the doubling is bilinear in any case.
    assert seen.ways == {way, "bilinear"} if architecture in ("fpn", "pan") else seen.ways == {way}


@pytest.mark.parametrize("way", ["nearest", "bilinear"])
def test_xnets_first_ascent_is_a_convolution_of_the_interpolated_map(way: Upsampling) -> None:
    network = made("xnet", way).eval()
    assert network.decoder is not None
    up, convolution = network.decoder.get_submodule("first_up.0").children()
    maps = torch.rand(1, 512, 4, 4)
    torch.testing.assert_close(up(maps), F.interpolate(maps, scale_factor=2, mode=way))
    assert convolution(up(maps)).shape == (1, 256, 8, 8)


def test_a_transposed_unet_block_is_the_librarys_behind_a_transposed_convolution() -> None:
    network = made("unet", "transposed").eval()
    assert network.decoder is not None
    block = network.decoder.get_submodule("blocks.0")
    maps, skip = torch.rand(1, 512, 2, 2), torch.rand(1, 256, 4, 4)
    up = block.get_submodule("up")
    assert isinstance(up, nn.ConvTranspose2d)
    doubled = F.conv_transpose2d(maps, up.weight, up.bias, stride=2)
    inside = block.get_submodule("block")
    expected = inside.get_submodule("conv2")(inside.get_submodule("conv1")(torch.cat([doubled, skip], dim=1)))
    torch.testing.assert_close(block(maps, 4, 4, skip_connection=skip), expected)
