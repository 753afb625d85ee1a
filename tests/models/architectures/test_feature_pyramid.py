"""Feature pyramids over plain vision transformers: sizes, positions, and decoders on top of them."""

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES
from models.architectures.feature_pyramid import FeaturePyramid, PyramidDecoder, image_side, level_strides, level_widths
from models.architectures.parts import Blueprint
from models.build import build
from models.catalog.registry import problem
from models.network import Network

TAKEN = [name for name, row in ARCHITECTURES.items() if row.features == "pyramid" and not row.own_encoder]
HALF_STRIDE = [name for name in TAKEN if ARCHITECTURES[name].half_stride]


def network(
    architecture: str | None, backbone: str = "tu-test_vit", *, dense: bool = True, deep: bool = False
) -> Network:
    torch.manual_seed(0)
    return build(
        Blueprint(
            architecture=architecture, backbone=backbone, channels=1, outputs=2, trains_decoder=dense,
            deep_supervision=deep,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("depth", "output_stride", "strides"), [
    (5, 32, (4, 8, 16, 32)), (5, 16, (4, 8, 16, 16)), (5, 8, (4, 8, 8, 8)), (3, 32, (4, 8)),
])  # fmt: skip
def test_levels_have_the_strides_of_a_convolutional_encoder(
    depth: int, output_stride: int, strides: tuple[int, ...]
) -> None:
    assert level_strides(depth, output_stride) == strides


def test_channels_are_halved_where_the_resolution_is_doubled() -> None:
    assert level_widths(64, 16, (4, 8, 16, 32)) == (16, 32, 64, 64)
    assert level_widths(64, 14, (4, 8, 16, 32)) == (16, 32, 64, 64)
    assert level_widths(64, 8, (4, 8, 16, 32)) == (32, 64, 64, 64)


@pytest.mark.parametrize("patch", [7, 8, 14, 16, 32])
@pytest.mark.parametrize("side", range(32, 1025, 32))
def test_the_size_of_the_images_follows_from_the_number_of_patches(patch: int, side: int) -> None:
    assert image_side(max(1, round(side / patch)), patch) == side


@pytest.mark.parametrize("patch", [8, 14, 16, 32])
def test_features_stay_at_their_position(patch: int) -> None:
    pyramid = FeaturePyramid(32, patch, (4, 8, 16, 32)).eval()
    rows, columns = 256 // patch, 128 // patch
    maps = [torch.randn(1, 32, rows, columns, generator=torch.Generator().manual_seed(0)) for _ in range(4)]
    changed = [part.clone() for part in maps]
    top, left = rows // 4, columns // 2
    for part in changed:
        part[:, :, top, left] += 3.0
    with torch.no_grad():
        before, after = pyramid(maps), pyramid([torch.zeros(1, 1, 32), *changed])  # with prefix tokens
    sizes = [(256 // stride, 128 // stride) for stride in (1, 2, 4, 8, 16, 32)]
    assert [tuple(part.shape[-2:]) for part in after] == sizes
    assert [part.shape[1] for part in after] == [0, 0, *level_widths(32, patch, (4, 8, 16, 32))]
    for stride, old, new in zip((4, 8, 16, 32), before[2:], after[2:], strict=True):
        place = torch.nonzero((old - new).abs().sum(dim=(0, 1)))
        centre = (place.float().mean(dim=0) + 0.5) * stride
        expected = torch.tensor([(top + 0.5) * 256 / rows, (left + 0.5) * 128 / columns])
        assert ((centre - expected).abs() <= max(patch, stride)).all()
        assert len(place) <= (-(-2 * max(patch, stride) // stride)) ** 2


@pytest.mark.parametrize("architecture", TAKEN)
def test_decoders_of_convolutional_encoders_accept_plain_transformers(architecture: str) -> None:
    expected = problem(architecture, "tu-test_vit", shape=(64, 128))
    if architecture in HALF_STRIDE:
        assert expected is not None
        assert "stride 2" in expected
        return
    side = 128 if architecture == "pan" else 64
    assert problem(architecture, "tu-test_vit", shape=(side, 128)) is None
    model = network(architecture)
    logits = model(torch.rand(2, 1, side, 128))
    assert logits.shape == (2, 2, side, 128)
    logits.square().mean().backward()
    assert isinstance(model.decoder, PyramidDecoder)
    levels = dict(model.decoder.pyramid.named_parameters())
    assert levels
    assert [name for name, part in levels.items() if not part.requires_grad or part.grad is None] == []


def test_the_encoder_is_the_same_in_all_architectures() -> None:
    states = [
        network(name, dense=name is not None).encoder.state_dict() for name in ("unet", "fpn", "dpt", "linear", None)
    ]
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


def test_patches_of_14_pixels_accept_images_of_multiples_of_32() -> None:
    backbone = "tu-vit_small_patch14_dinov2"
    assert problem("unet", backbone, shape=(96, 64)) is None
    assert "multiples of 32" in str(problem("unet", backbone, shape=(100, 64)))
    assert problem(None, backbone, shape=(96, 64)) is None
    assert problem(None, backbone, shape=(98, 70)) is None
    model = network("fpn", backbone).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 1, 96, 64)).shape == (1, 2, 96, 64)


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("side", [96, 128, 512])
def test_all_levels_depend_on_all_patches(patch: int, side: int) -> None:
    pyramid = FeaturePyramid(16, patch, (4, 8, 16, 32)).eval()
    number = round(side / patch)
    maps = [torch.randn(1, 16, number, number, generator=torch.Generator().manual_seed(1)) for _ in range(4)]
    changed = [part.clone() for part in maps]
    for part in changed:
        part[:, :, -1, :] += 5.0
    with torch.no_grad():
        for before, after in zip(pyramid(maps)[2:], pyramid(changed)[2:], strict=True):
            differs = (before - after).abs().sum(dim=(0, 1, 3)) > 1e-5
            assert differs[-1]
            assert not differs[: len(differs) // 2].any()


def test_levels_that_a_decoder_does_not_use_have_no_weights() -> None:
    model = network("pspnet")
    assert isinstance(model.decoder, PyramidDecoder)
    assert [len(list(level.parameters())) > 0 for level in model.decoder.pyramid.levels] == [False, True]


@pytest.mark.parametrize("architecture", ["unet", "linear"])
def test_a_fixed_size_has_to_fit_the_decoder(architecture: str) -> None:
    message = problem(architecture, "tu-deepseek_vit_412m", shape=(544, 544))
    assert message is not None
    assert "image side is a multiple of 32 or not fixed" in message


def test_images_are_resized_to_whole_patches() -> None:
    encoder = network(None, dense=False).encoder.eval()
    images = torch.rand(1, 1, 64, 96)
    calls: list[torch.Size] = []
    embedding = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    embedding.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape))
    with torch.no_grad():
        encoder(images)
        encoder(torch.rand(1, 1, 70, 90))
    assert calls == [torch.Size((1, 1, 64, 96)), torch.Size((1, 1, 64, 96))]


def test_deep_supervision_is_available_with_the_pyramid() -> None:
    model = network("unet", deep=True)
    assert model(torch.rand(2, 1, 64, 64), deep=True).shape == (4, 2, 2, 64, 64)
