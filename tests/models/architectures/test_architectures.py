"""Architectures with an encoder of their own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.architectures.heads import FlattenHead
from models.architectures.layers import unpool
from models.architectures.unet_plain import DROPOUT
from models.build import Blueprint, build
from models.losses.functions import losses
from models.network import Network
from models.weights.initial import load_pretrained

SIDE = 32


def make_network(architecture: str, backbone: str = "own", *, channels: int = 1, outputs: int = 2) -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=channels, outputs=outputs))


def encoder_only(architecture: str | None, backbone: str, **settings: object) -> Network:
    torch.manual_seed(0)
    defaults = {
        "architecture": architecture,
        "backbone": backbone,
        "channels": 1,
        "outputs": 2,
        "trains_decoder": False,
    }
    return build(Blueprint(**{**defaults, **settings}))  # type: ignore[arg-type]


def widths(module: nn.Module | None) -> list[int]:
    assert module is not None
    return [layer.out_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("architecture", "channels", "outputs", "published"),
    [
        ("xnet", 1, 3, 11.73e6),
        ("segnet", 3, 3, 29.5e6),
        ("segnet_basic", 3, 11, 1.425e6),
        ("unet_plain", 1, 2, 31.0e6),
        ("segnet_plain", 1, 3, 5.46e6),
    ],
)
def test_it_has_the_published_number_of_parameters(
    architecture: str, channels: int, outputs: int, published: float
) -> None:
    network = make_network(architecture, channels=channels, outputs=outputs)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert trained == pytest.approx(published, rel=0.01)


def test_xnet_has_two_encoders_and_two_decoders() -> None:
    network = make_network("xnet")
    assert widths(network.encoder) == [64, 128, 256, 512, 512]
    assert widths(network.decoder) == [256, 128, 128, 256, 512, 512, 256, 128, 64]


def test_segnets_decoder_mirrors_vgg16() -> None:
    network = make_network("segnet", outputs=3)
    assert widths(network.encoder) == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert widths(network.decoder) + widths(network.head) == [512] * 5 + [256] * 3 + [128] * 2 + [64] * 2 + [3]


def test_segnet_plain_has_one_convolution_per_level_and_no_skip_connections() -> None:
    network = make_network("segnet_plain", outputs=3).eval()
    assert widths(network.encoder) == [64, 128, 256, 512]
    assert widths(network.decoder) + widths(network.head) == [512, 256, 128, 64, 3]
    assert {layer.kernel_size for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d)} == {(3, 3)}
    *shallow, deepest = network.encoder(torch.rand(1, 1, 64, 64))
    assert [maps.shape[-1] for maps in (*shallow, deepest)] == [64, 32, 16, 8]
    assert network.decoder is not None
    changed = network.decoder([*map(torch.zeros_like, shallow), deepest])
    assert torch.equal(changed, network.decoder([*shallow, deepest]))


def test_unet_plain_has_two_convolutions_and_a_dropout_per_level() -> None:
    network = make_network("unet_plain")
    assert widths(network.encoder) == [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
    drops = [layer.p for layer in network.encoder.modules() if isinstance(layer, nn.Dropout)]
    assert drops == [DROPOUT] * 5


def test_a_frozen_level_of_unet_plain_has_no_dropout_in_training() -> None:
    network = make_network("unet_plain")
    network.freeze(["encoder.stage1", "encoder.stage2"])
    network.train()
    drops = [layer.training for layer in network.encoder.modules() if isinstance(layer, nn.Dropout)]
    assert drops == [False, False, True, True, True]


def test_segnet_basic_has_a_relu_only_in_its_encoder() -> None:
    network = make_network("segnet_basic")
    assert network.decoder is not None
    assert any(isinstance(layer, nn.ReLU) for layer in network.encoder.modules())
    assert not any(isinstance(layer, nn.ReLU) for layer in network.decoder.modules())
    assert {layer.kernel_size for layer in network.decoder.modules() if isinstance(layer, nn.Conv2d)} == {(7, 7)}


@pytest.mark.parametrize("ties", [False, True])
def test_unpooling_equals_torch_with_the_indices_of_the_pooling(ties: bool) -> None:
    before = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    before = before.relu().round() if ties else before
    _, indices = F.max_pool2d(before, 2, return_indices=True)
    maps = torch.randn(2, 3, 4, 6)
    assert torch.equal(unpool(maps, before), F.max_unpool2d(maps, indices, 2))


def test_unpooled_values_of_segnet_are_at_the_positions_of_the_pooling() -> None:
    network = make_network("segnet").eval()
    features = network.encoder(torch.rand(1, 1, 64, 64))
    pooled, indices = F.max_pool2d(features[4], 2, return_indices=True)
    assert torch.equal(pooled, features[5])
    assert torch.equal(unpool(features[5], features[4]), F.max_unpool2d(pooled, indices, 2))


def test_segnet_shares_its_encoder_with_vgg16_of_other_architectures() -> None:
    segnet, named, unet = (
        make_network(*pair).encoder for pair in (("segnet", "own"), ("segnet", "vgg16_bn"), ("unet", "vgg16_bn"))
    )
    for encoder in (named, unet):
        assert {name: tensor.shape for name, tensor in segnet.state_dict().items()} == {
            name: tensor.shape for name, tensor in encoder.state_dict().items()
        }
        assert all(torch.equal(a, b) for a, b in zip(segnet.parameters(), encoder.parameters(), strict=True))


def test_an_own_encoder_has_no_published_weights() -> None:
    with pytest.raises(ValueError, match="initial_weights of own is imagenet; allowed: random"):
        load_pretrained(make_network("segnet_basic"), "own", "imagenet")


def test_a_flattened_head_uses_every_position_of_the_deepest_map() -> None:
    network = encoder_only("unet_plain", "own", head="flatten", shape=(48, 48)).eval()
    assert isinstance(network.head, FlattenHead)
    assert network.head.weight.shape == (2, 1024 * 3 * 3)
    images = torch.rand(2, 1, 48, 48)
    deepest = network.encoder((images - network.mean) / network.std)[-1]
    torch.testing.assert_close(network(images), F.linear(deepest.flatten(1), network.head.weight, network.head.bias))


def test_an_average_head_uses_the_global_average_of_the_deepest_map() -> None:
    network = encoder_only(None, "resnet18").eval()
    images = torch.rand(2, 1, 64, 64)
    deepest = network.encoder((images - network.mean) / network.std)[-1]
    weight, bias = network.head.weight, network.head.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    torch.testing.assert_close(network(images), F.linear(deepest.mean(dim=(2, 3)), weight, bias))


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11", "tu-test_vit"])
def test_a_flattened_head_fits_named_backbones_at_the_size_it_was_built_for(backbone: str) -> None:
    side = 160 if backbone == "tu-test_vit" else 96
    network = encoder_only(None, backbone, head="flatten", shape=(side, side))
    assert network(torch.rand(2, 1, side, side)).shape == (2, 2)


def test_a_flattened_head_requires_the_size_of_the_images() -> None:
    with pytest.raises(ValueError, match="shape is None under head flatten; allowed: height and width of the images"):
        encoder_only(None, "resnet18", head="flatten")


def discs() -> tuple[Tensor, Tensor]:
    """Eight noisy images with one bright disc each, and its mask as class ids."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(8, SIDE - 8, (8, 2, 1, 1), generator=generator)
    along = torch.arange(SIDE)
    masks = (along.view(1, -1, 1) - centres[:, 0]) ** 2 + (along.view(1, 1, -1) - centres[:, 1]) ** 2 <= 36
    return 0.3 * torch.rand(8, 1, SIDE, SIDE, generator=generator) + 0.7 * masks.unsqueeze(1), masks.long()


@pytest.mark.parametrize(
    ("architecture", "lr", "steps"),
    [
        ("unet_plain", 1e-3, 10),
        ("xnet", 1e-3, 20),
        ("segnet", 1e-3, 20),
        ("segnet_basic", 3e-3, 45),
        ("segnet_plain", 1e-3, 20),
    ],
)
def test_it_overfits_eight_images(architecture: str, lr: float, steps: int) -> None:
    network, (images, ids) = make_network(architecture), discs()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    for _ in range(steps):
        logits = network(images)
        predicted = logits.argmax(dim=1)
        overlap = ((predicted & ids).sum() / (predicted | ids).sum()).item()
        if overlap > 0.9:
            break
        optimizer.zero_grad()
        losses["cross_entropy"](logits, ids, exclusive=True).backward()
        optimizer.step()
    assert overlap > 0.9
