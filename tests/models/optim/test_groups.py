"""Learning rates by depth in the encoder."""

import pytest
import torch

from models.architectures.parts import Blueprint
from models.build import build
from models.network import Network
from models.optim.groups import FACTOR, encoder_layers, parameter_groups
from models.optim.optimizers import make_optimizer
from models.settings import NetworkOptimizerSettings


def make_network(architecture: str, backbone: str) -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=1))


def factors(network: Network, **settings: float) -> dict[str, float]:
    """Return the factor of each parameter by name."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, NetworkOptimizerSettings.model_validate(settings))
    by_name = {names[id(parameter)]: group[FACTOR] for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(by_name) == len(names)
    return by_name


@pytest.mark.parametrize(("architecture", "backbone"), [("unet", "resnet18"), ("dpt", "tu-test_vit"), ("xnet", "own")])
def test_the_factor_of_the_encoder_does_not_apply_to_decoder_and_head(architecture: str, backbone: str) -> None:
    for name, factor in factors(make_network(architecture, backbone), encoder_lr_factor=0.1).items():
        assert factor == (0.1 if name.startswith("encoder.") else 1.0), name


def test_the_rate_decreases_from_stage_to_stage_towards_the_input() -> None:
    by_name = factors(make_network("unet", "resnet18"), layer_decay=0.5, encoder_lr_factor=0.1)
    expected = {"conv1": 5, "bn1": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1}
    for name, factor in by_name.items():
        part, stage, *_ = name.split(".")
        assert factor == pytest.approx(0.1 * 0.5 ** expected[stage] if part == "encoder" else 1.0), name


def test_transformers_have_a_layer_for_each_block() -> None:
    network = make_network("dpt", "tu-test_vit")
    by_name = factors(network, layer_decay=0.5)
    blocks = {int(name.split(".blocks.")[1].split(".")[0]) for name in by_name if ".blocks." in name}
    count = len(blocks)
    assert len(encoder_layers(network)) == count + 1
    for name, factor in by_name.items():
        if "patch_embed" in name or "pos_embed" in name:
            assert factor == 0.5 ** (count + 1), name
        elif ".blocks." in name:
            assert factor == 0.5 ** (count - int(name.split("blocks.")[1].split(".")[0])), name


def test_an_update_uses_the_rate_of_each_layer() -> None:
    network = make_network("unet", "resnet18")
    settings = NetworkOptimizerSettings(name="sgd", lr=0.5, layer_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = make_optimizer(settings, parameter_groups(network, settings))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_name = factors(network, layer_decay=0.5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, 0.5 * by_name[name]), msg=name)


def test_the_first_group_has_the_rate_of_decoder_and_head() -> None:
    settings = NetworkOptimizerSettings(lr=0.2, encoder_lr_factor=3.0)
    groups = parameter_groups(make_network("unet", "resnet18"), settings)
    assert [group["lr"] for group in groups] == [0.2, pytest.approx(0.6)]
