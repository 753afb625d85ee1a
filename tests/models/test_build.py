"""One contract over a table of architectures and backbones."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES
from models.build import Blueprint, build
from models.catalog.registry import encoder_stages, probe_size, problem
from models.network import Network
from models.weights.initial import carry

NETWORKS = [
    ("unet", "vgg16"),
    ("unet", "resnet50"),
    ("unet", "resnext50_32x4d"),
    ("unet", "mit_b0"),
    ("unet", "tu-convnext_atto"),
    ("deeplabv3", "vgg16"),
    ("deeplabv3", "resnet50"),
    ("deeplabv3", "tu-test_resnet"),
    ("deeplabv3plus", "vgg16"),
    ("deeplabv3plus", "resnext50_32x4d"),
    ("deeplabv3plus", "xception"),
    ("unetplusplus", "resnet18"),
    ("manet", "mobilenet_v2"),
    ("linknet", "resnet18"),
    ("fpn", "efficientnet-b0"),
    ("pspnet", "resnet18"),
    ("pan", "resnet18"),
    ("upernet", "tu-test_convnext"),
    ("segformer", "mit_b0"),
    ("dpt", "tu-test_vit"),
    ("unet", "tu-test_vit"),
    ("deeplabv3plus", "tu-test_vit3"),
    ("pspnet", "tu-test_vit"),
    ("linear", "resnet18"),
    ("linear", "tu-test_vit"),
    ("mlp", "mit_b0"),
    ("mlp", "tu-test_vit2"),
    ("unet_plain", "own"),
    ("xnet", "own"),
    ("segnet", "vgg16_bn"),
    ("segnet_basic", "own"),
    ("segnet_plain", "own"),
    (None, "resnet18"),
    (None, "mit_b0"),
    (None, "tu-test_vit"),
]
OWN_ENCODERS = [(name, "own") for name, row in ARCHITECTURES.items() if row.own_encoder]
CASES = [(pair, pair[0] is not None) for pair in NETWORKS] + [(pair, False) for pair in OWN_ENCODERS]
OUTPUTS = 2
FAMILIES = ["resnet18", "vgg11", "xception", "mit_b0", "tu-test_resnet", "mobilenet_v2", "dpn68"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_network(
    architecture: str | None, backbone: str, *, channels: int = 1, skips: bool = True, trains_decoder: bool = True
) -> Network:
    torch.manual_seed(0)
    blueprint = Blueprint(
        architecture=architecture,
        backbone=backbone,
        channels=channels,
        outputs=OUTPUTS,
        skips=skips,
        trains_decoder=trains_decoder,
    )
    return build(blueprint)


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0][0]}-{case[0][1]}{'' if case[1] else '-encoder'}"
)
def case(request: pytest.FixtureRequest) -> tuple[Network, torch.Tensor, bool]:
    (architecture, backbone), dense = request.param
    size = probe_size(architecture, backbone)
    assert problem(architecture, backbone, shape=(size, size)) is None
    return make_network(architecture, backbone, trains_decoder=dense), torch.rand(2, 1, size, size), dense


def test_the_contract_covers_every_architecture() -> None:
    assert {architecture for architecture, _ in NETWORKS} == {None, *ARCHITECTURES}


def test_logits_have_the_size_of_the_images_or_one_row_per_image(
    case: tuple[Network, torch.Tensor, bool],
) -> None:
    network, images, dense = case
    logits = network.train()(images)
    assert logits.shape == ((2, OUTPUTS, *images.shape[-2:]) if dense else (2, OUTPUTS))
    assert logits.isfinite().all()


def test_rectangles_have_logits_of_their_height_and_width(case: tuple[Network, torch.Tensor, bool]) -> None:
    network, images, dense = case
    wide = torch.cat([images, images], dim=3)
    logits = network.eval()(wide)
    assert logits.shape == ((2, OUTPUTS, *wide.shape[-2:]) if dense else (2, OUTPUTS))
    assert logits.isfinite().all()


def test_gradients_reach_every_trained_parameter(case: tuple[Network, torch.Tensor, bool]) -> None:
    network, images, _ = case
    network.zero_grad()
    network.train()(images).square().sum().backward()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert len(trained) > 0.9 * len(list(network.parameters()))


def test_tensors_are_named_by_part(case: tuple[Network, torch.Tensor, bool]) -> None:
    network, _, dense = case
    parts = {name.partition(".")[0] for name in network.state_dict()}
    assert parts == ({"encoder", "decoder", "head"} if dense else {"encoder", "head"})


def test_carried_parts_are_loaded_and_the_head_is_new(case: tuple[Network, torch.Tensor, bool]) -> None:
    network, _, dense = case
    parent = {name: torch.full_like(tensor, 3) for name, tensor in network.state_dict().items()}
    child = copy.deepcopy(network)
    transfer = carry(parent, child, ["encoder", "decoder"] if dense else ["encoder"])
    for name, tensor in child.state_dict().items():
        assert (tensor == 3).all() == (not name.startswith("head.")), name
    assert {name.partition(".")[0] for name in transfer.new} == {"head"}
    assert {*transfer.carried, *transfer.left_behind} == set(parent)


def test_a_frozen_encoder_does_not_change_in_training(case: tuple[Network, torch.Tensor, bool]) -> None:
    network, images, _ = case
    network.freeze(["encoder"])
    before = {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}
    network.eval()
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(images).square().mean().backward()
    optimizer.step()
    after = network.encoder.state_dict()
    network.unfreeze(["encoder"])
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(module.training for module in network.encoder.modules())


@pytest.mark.parametrize("backbone", ["resnet18", "tu-convnext_atto"])
def test_three_channels_are_accepted(backbone: str) -> None:
    network = make_network("unet", backbone, channels=3)
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, OUTPUTS, 64, 64)


@pytest.mark.parametrize("architecture", ["unet", "fpn", "upernet", "pan", "deeplabv3plus"])
def test_encoders_of_different_architectures_share_names_and_shapes(architecture: str) -> None:
    alone, within = (
        make_network(None, "resnet18").encoder.state_dict(),
        make_network(architecture, "resnet18").encoder.state_dict(),
    )
    assert {name: tensor.shape for name, tensor in alone.items()} == {
        name: tensor.shape for name, tensor in within.items()
    }


@pytest.mark.parametrize("backbone", FAMILIES)
def test_dilated_and_undilated_encoders_share_names_and_shapes(backbone: str) -> None:
    shapes = [
        {name: tensor.shape for name, tensor in make_network(architecture, backbone).encoder.state_dict().items()}
        for architecture in (None, "deeplabv3")
    ]
    assert all(shape == shapes[0] for shape in shapes)


@pytest.mark.parametrize(("architecture", "backbone"), OWN_ENCODERS)
def test_an_own_encoder_trained_alone_has_the_tensors_of_its_architecture(architecture: str, backbone: str) -> None:
    alone, within = make_network(architecture, backbone, trains_decoder=False), make_network(architecture, backbone)
    transfer = carry(alone.state_dict(), within, ["encoder"])
    assert len(transfer.carried) == len(alone.encoder.state_dict())
    again = make_network(architecture, backbone).encoder.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in within.encoder.state_dict().items())


@pytest.mark.parametrize(("architecture", "backbone"), [*NETWORKS, *OWN_ENCODERS, ("pspnet", "vgg16")])
def test_the_catalog_counts_the_stages_that_can_be_frozen(architecture: str | None, backbone: str) -> None:
    network = make_network(architecture, backbone)
    names = [f"encoder.stage{number}" for number in range(1, encoder_stages(architecture, backbone) + 1)]
    network.freeze(names)
    assert not any(parameter.requires_grad for parameter in network.encoder.parameters())
    with pytest.raises(ValueError, match="freeze names"):
        network.freeze([f"encoder.stage{len(names) + 1}"])


def test_equal_seeds_give_equal_encoders_in_all_architectures() -> None:
    unet, fpn, alone = (make_network(architecture, "resnet18").encoder for architecture in ("unet", "fpn", None))
    for other in (fpn, alone):
        assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("architecture", "backbone"), [("unet", "resnet18"), ("unet", "vgg11"), ("xnet", "own")])
def test_equal_seeds_build_equal_networks_and_others_do_not(architecture: str, backbone: str) -> None:
    first, second = make_network(architecture, backbone), make_network(architecture, backbone)
    third = build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=OUTPUTS))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(third.parameters()))


def test_pspnet_has_no_untrained_layer() -> None:
    names = set(make_network("pspnet", "resnet18").state_dict())
    assert not any(name.startswith(("encoder.layer3", "encoder.layer4")) for name in names)
    assert any(name.startswith("encoder.layer2") for name in names)


def test_without_skip_connections_only_the_deepest_feature_map_matters() -> None:
    maps: list[torch.Tensor] = []
    network = make_network("unet", "resnet18", skips=False).eval()
    assert network.decoder is not None
    network.decoder.register_forward_pre_hook(lambda _, inputs: maps.extend(inputs[0]))
    network(torch.rand(1, 1, 64, 64))
    assert [bool(feature.any()) for feature in maps] == [False] * 5 + [True]
    with_skips = {name: tensor.shape for name, tensor in make_network("unet", "resnet18").state_dict().items()}
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == with_skips


def test_a_new_network_is_in_training_mode_with_initial_statistics() -> None:
    network = make_network("unet", "resnet18")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert network.training
    assert all(not module.running_mean.any() for module in norms if module.running_mean is not None)
