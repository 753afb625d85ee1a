from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from models.encoders.library import pyramid
from models.encoders.reach import reached_parameters, stages
from models.encoders.vision import smp


@pytest.mark.parametrize("name", ["vgg11_bn", "xception"])
def test_without_dilation_the_own_encoder_equals_the_librarys(name: str) -> None:
    torch.manual_seed(0)
    theirs = smp.encoders.get_encoder(name, weights=None).eval()
    encoder = smp.encoders.get_encoder(f"{name}_dilated", weights=None).eval()
    encoder.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert list(encoder.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(encoder(images), theirs(images), strict=True))


@pytest.mark.parametrize("name", ["vgg11", "xception"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilation_keeps_the_deeper_maps_at_the_output_stride(name: str, output_stride: int) -> None:
    encoder = pyramid(name, channels=1, output_stride=output_stride, options={}).eval()
    sides = [feature.shape[-1] for feature in encoder(torch.rand(1, 1, 64, 64))]
    assert sides == [64 // min(2**power, output_stride) for power in range(6)]


@pytest.mark.parametrize("name", ["vgg11", "xception"])
def test_dilation_does_not_change_the_maps_up_to_the_output_stride(name: str) -> None:
    plain = pyramid(name, channels=1, options={}).eval()
    dilated = pyramid(name, channels=1, output_stride=16, options={}).eval()
    dilated.load_state_dict(plain.state_dict())
    images = torch.rand(1, 1, 64, 64)
    for before, after in zip(plain(images)[:5], dilated(images)[:5], strict=True):
        torch.testing.assert_close(before, after)


def test_the_last_stage_of_a_dilated_vgg_has_the_receptive_field_of_the_undilated_one() -> None:
    """Pooling with stride 1 and dilation 2 yields, at every second pixel, the undilated convolution."""
    dilated = pyramid("vgg11", channels=1, output_stride=8, options={}).eval()
    convolution = dilated.features[16]
    maps = torch.rand(1, 512, 8, 8)
    undilated = torch.nn.functional.conv2d(maps[..., ::2, ::2], convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(maps)[..., ::2, ::2], undilated, rtol=1e-4, atol=1e-4)


def test_the_library_still_refuses_dilated_vgg() -> None:
    with pytest.raises(ValueError, match="do not support dilated mode"):
        smp.encoders.get_encoder("vgg11", weights=None, output_stride=8)


class Draws(TorchDispatchMode):
    """Records the shapes of tensors that are filled with random values."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: Sequence[torch.Tensor] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if str(function).startswith(("aten.normal_", "aten.uniform_")):
            self.shapes.append(args[0].shape)
        return function(*args, **(kwargs or {}))


def test_no_random_classifier_is_created_for_a_vgg() -> None:
    with Draws() as drawn:
        encoder = pyramid("vgg11", channels=3, options={})
    convolutions = [layer.weight.shape for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert set(convolutions) <= set(drawn.shapes)
    assert max(shape.numel() for shape in drawn.shapes) == 512 * 512 * 9


def test_convolutions_of_vgg_are_initialised_as_by_the_library() -> None:
    torch.manual_seed(0)
    encoder = pyramid("vgg11", channels=3, options={})
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.Conv2d):
            deviation = (2 / (layer.out_channels * 9)) ** 0.5  # He et al. (2015), with fan-out
            assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
            assert layer.bias is not None
            assert not layer.bias.any()


def test_reached_parameters_are_those_with_a_gradient() -> None:
    first, second, unused = (torch.nn.Linear(3, 3) for _ in range(3))
    output = second(first(torch.rand(2, 3)).relu())
    assert reached_parameters(output) == {id(p) for layer in (first, second) for p in layer.parameters()}
    assert not reached_parameters(output) & {id(p) for p in unused.parameters()}


def test_a_feature_map_without_parameters_does_not_start_a_stage() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.MaxPool2d(2), torch.nn.Conv2d(2, 2, 1))
    image = torch.rand(1, 1, 4, 4)
    first = layers[0](image)
    pooled = layers[1](first)
    features = [image, first, pooled, layers[2](pooled)]
    assert stages(layers, features) == (("0.weight", "0.bias"), ("2.weight", "2.bias"))
