"""Each method of upsampling is the named one, in every architecture that offers it."""

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


def make_network(architecture: str, way: Upsampling | None) -> Network:
    torch.manual_seed(0)
    backbone = "own" if ARCHITECTURES[architecture].own_encoder else "resnet18"
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=2, upsampling=way))


def shapes(network: Network) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def transposed(network: Network) -> list[nn.ConvTranspose2d]:
    assert network.decoder is not None
    return [layer for layer in network.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]


@pytest.mark.parametrize(("architecture", "way"), WAYS)
def test_every_upsampling_method_can_be_built_and_has_the_size_of_the_images(
    architecture: str, way: Upsampling
) -> None:
    backbone = "own" if ARCHITECTURES[architecture].own_encoder else "resnet18"
    size = probe_size(architecture, backbone)
    assert problem(architecture, backbone, shape=(size, size), upsampling=way) is None
    assert make_network(architecture, way).eval()(torch.rand(1, 1, size, size)).shape == (1, 2, size, size)


@pytest.mark.parametrize("architecture", sorted({name for name, _ in WAYS}))
def test_the_default_is_the_first_method_of_the_table(architecture: str) -> None:
    default, first = (
        make_network(architecture, None),
        make_network(architecture, ARCHITECTURES[architecture].upsampling[0]),
    )
    images = torch.rand(
        1, 1, *[probe_size(architecture, "own" if ARCHITECTURES[architecture].own_encoder else "resnet18")] * 2
    )
    assert shapes(default) == shapes(first)
    assert torch.equal(default.eval()(images), first.eval()(images))


@pytest.mark.parametrize(("architecture", "way"), [*CHOICES, ("linknet", "transposed")])
def test_only_a_transposed_decoder_has_parameters_for_upsampling(architecture: str, way: Upsampling) -> None:
    assert bool(transposed(make_network(architecture, way))) == (way == "transposed")


@pytest.mark.parametrize("architecture", ["unet", "unet_plain", "xnet"])
def test_transposed_convolutions_double_once_per_level_and_are_trained(architecture: str) -> None:
    network = make_network(architecture, "transposed")
    layers = transposed(network)
    assert len(layers) == 4 + (architecture != "unet_plain")
    assert {(layer.kernel_size, layer.stride) for layer in layers} == {((2, 2), (2, 2))}
    network(torch.rand(2, 1, 64, 64)).square().sum().backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.any() for layer in layers)


class Interpolations(TorchDispatchMode):
    """Records which interpolations are called."""

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
def test_an_interpolated_decoder_uses_only_that_interpolation(architecture: str, way: Upsampling) -> None:
    network = make_network(architecture, way).eval()
    assert network.decoder is not None
    with torch.no_grad():
        features = network.encoder(torch.rand(1, 1, 128, 128))
        with Interpolations() as interpolations:
            network.decoder(features)
    # The pyramids of FPN and PAN are always resized bilinearly, apart from the doubling.
    assert interpolations.ways == {way, "bilinear"} if architecture in ("fpn", "pan") else interpolations.ways == {way}


@pytest.mark.parametrize("way", ["nearest", "bilinear"])
def test_the_first_upsampling_of_xnet_is_a_convolution_of_the_interpolated_map(way: Upsampling) -> None:
    network = make_network("xnet", way).eval()
    assert network.decoder is not None
    up, convolution = network.decoder.get_submodule("first_up.0").children()
    maps = torch.rand(1, 512, 4, 4)
    torch.testing.assert_close(up(maps), F.interpolate(maps, scale_factor=2, mode=way))
    assert convolution(up(maps)).shape == (1, 256, 8, 8)


def test_a_transposed_unet_block_is_the_librarys_after_a_transposed_convolution() -> None:
    network = make_network("unet", "transposed").eval()
    assert network.decoder is not None
    block = network.decoder.get_submodule("blocks.0")
    maps, skip = torch.rand(1, 512, 2, 2), torch.rand(1, 256, 4, 4)
    up = block.get_submodule("up")
    assert isinstance(up, nn.ConvTranspose2d)
    doubled = F.conv_transpose2d(maps, up.weight, up.bias, stride=2)
    inside = block.get_submodule("block")
    expected = inside.get_submodule("conv2")(inside.get_submodule("conv1")(torch.cat([doubled, skip], dim=1)))
    torch.testing.assert_close(block(maps, 4, 4, skip_connection=skip), expected)
