"""Masked autoencoders: the input of the encoder, and the carried weights."""

import pytest
import torch

from models.architectures.parts import Blueprint
from models.build import build
from models.catalog.masking import hides_patches, masking_problem
from models.catalog.registry import backbone, backbones
from models.encoders.vision import timm
from models.masked_autoencoder import MaskedAutoencoder
from models.weights.initial import carry

BACKBONES = ["tu-test_vit", "tu-test_vit2", "tu-test_vit3", "tu-test_vit4", "tu-vit_tiny_patch16_224",
             "tu-deit_tiny_distilled_patch16_224", "tu-vit_wee_patch16_reg1_gap_256"]  # fmt: skip


def autoencoder(name: str = "tu-test_vit") -> MaskedAutoencoder:
    torch.manual_seed(0)
    made = build(Blueprint(architecture=None, backbone=name, channels=1, outputs=1, head="patches", head_width=32,
                           head_depth=1))  # fmt: skip
    assert isinstance(made, MaskedAutoencoder)
    return made.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_with_all_patches_visible_the_encoder_is_that_of_other_networks(name: str) -> None:
    network, images = autoencoder(name), torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        deepest = network.encoder(images)[-1]
        rows, columns = network.grid(images)
        tokens = network.encoder.visible_tokens(images, torch.arange(rows * columns).expand(2, -1))
    assert torch.equal(tokens[:, -rows * columns :].transpose(1, 2).reshape_as(deepest), deepest)


def test_the_encoder_processes_visible_patches_only() -> None:
    network, visible = autoencoder(), torch.tensor([[1, 4, 6]])
    lengths: list[int] = []
    network.encoder.model.blocks[0].register_forward_hook(lambda _, __, output: lengths.append(output.shape[1]))
    network(torch.rand(1, 1, 64, 32), visible=visible)
    assert lengths == [network.encoder.model.num_prefix_tokens + 3]


def test_every_parameter_is_trained() -> None:
    network = autoencoder().train()
    network(torch.rand(2, 1, 32, 32), visible=torch.tensor([[0], [2]])).square().sum().backward()
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert unused == []


def test_the_encoder_is_carried_into_a_segmentation_network() -> None:
    parent = autoencoder().state_dict()
    network = build(Blueprint(architecture="linear", backbone="tu-test_vit", channels=1, outputs=2))
    transfer = carry(parent, network, ["encoder"])
    assert set(transfer.carried) == {name for name in parent if name.startswith("encoder.")}
    assert all(name.startswith("head.") for name in transfer.left_behind)


def test_images_are_resized_to_whole_patches() -> None:
    network = autoencoder()
    assert network(torch.rand(1, 1, 60, 72)).shape == (1, 1, 64, 64)


def test_maskable_backbones_are_transformers_of_timm_with_a_position_embedding() -> None:
    plain = [name for name in backbones() if backbone(name).features == "plain"]
    modules = {
        name: timm.models.model_entrypoint(name.removeprefix("tu-")).__module__.rpartition(".")[2] for name in plain
    }
    expected = {name for name, module in modules.items() if module in ("vision_transformer", "deit")}
    assert {name for name in plain if hides_patches(name)} == expected
    assert len(expected) > 100


@pytest.mark.parametrize(
    ("name", "shape", "line"),
    [
        ("resnet50", (64, 64), "method is mae with the backbone resnet50; allowed: plain vision transformers"),
        ("tu-eva02_tiny_patch14_224", (64, 64), "method is mae with the backbone tu-eva02_tiny_patch14_224"),
        ("tu-beit_base_patch16_224", (224, 224), "method is mae with the backbone tu-beit_base_patch16_224"),
        ("own", (64, 64), "method is mae with the backbone own"),
        ("tu-vit_small_patch32_224", (32, 32), "image size is 32 for patches of 32 pixels; allowed: two patches"),
        ("tu-vit_small_patch32_224", (32, 47), "image size is [32, 47] for patches of 32 pixels; allowed: two patches"),
    ],
)
def test_backbones_that_cannot_be_masked_are_refused(name: str, shape: tuple[int, int], line: str) -> None:
    assert str(masking_problem(name, shape)).startswith(line)


def test_a_transformer_can_be_masked() -> None:
    assert masking_problem("tu-vit_small_patch16_224", (224, 224)) is None


def test_images_are_refused_if_the_network_divides_them_into_a_single_patch() -> None:
    network, name = autoencoder("tu-vit_small_patch32_224"), "tu-vit_small_patch32_224"
    for shape in [(32, 32), (32, 47), (48, 48), (32, 49), (48, 32), (64, 32), (80, 40)]:
        with torch.no_grad():
            rows, columns = network.encoder(torch.rand(1, 1, *shape))[-1].shape[-2:]
        assert (masking_problem(name, shape) is None) == (rows * columns > 1), shape
