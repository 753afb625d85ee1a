import re

import pytest
import torch
from torch import Tensor, nn

from models.adaptation import adapt, merge_adapters
from models.build import Blueprint, build
from models.network import Network
from models.optim.groups import FACTOR, parameter_groups
from models.settings import Adapt, LoraSettings, NetworkOptimizerSettings

VIT = "tu-vit_tiny_patch16_224"
IMAGES = torch.zeros(1, 3, 64, 64)


def make_network(backbone: str = "resnet18", architecture: str = "unet") -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=3, outputs=1))


def adapted(settings: Adapt, backbone: str = "resnet18", architecture: str = "unet") -> Network:
    network = make_network(backbone, architecture)
    adapt(network, settings, IMAGES)
    return network


def trained(network: Network, part: str = "encoder") -> set[str]:
    return {name for name, value in network.named_parameters() if value.requires_grad and name.startswith(f"{part}.")}


def update(network: Network) -> None:
    """Apply one update of SGD with random images."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network.train()(torch.rand(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def names_of(network: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> set[str]:
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if isinstance(module, kinds)
        for key, _ in module.named_parameters(recurse=False)
    }


def test_full_trains_everything() -> None:
    assert trained(adapted("full")) == {f"encoder.{name}" for name, _ in make_network().encoder.named_parameters()}


@pytest.mark.parametrize(("backbone", "architecture"), [("resnet18", "unet"), (VIT, "linear"), ("mit_b0", "fpn")])
def test_norm_trains_the_normalisation_layers_of_the_encoder(backbone: str, architecture: str) -> None:
    network = adapted("norm", backbone, architecture)
    assert trained(network) == {f"encoder.{name}" for name in names_of(network.encoder, (nn.BatchNorm2d, nn.LayerNorm))}


@pytest.mark.parametrize(("backbone", "architecture"), [("resnet18", "unet"), (VIT, "linear")])
def test_bias_trains_the_biases_of_the_encoder(backbone: str, architecture: str) -> None:
    network = adapted("bias", backbone, architecture)
    assert trained(network)
    assert trained(network) == {
        f"encoder.{name}" for name, _ in network.encoder.named_parameters() if name.endswith(".bias")
    }


@pytest.mark.parametrize("settings", ["norm", "bias", LoraSettings()])
def test_decoder_and_head_are_trained_completely(settings: Adapt) -> None:
    network = adapted(settings)
    for part in ("decoder", "head"):
        assert trained(network, part) == {name for name, _ in network.named_parameters() if name.startswith(f"{part}.")}


def test_an_encoder_without_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^adapt is norm, but the encoder has no normalisation layers; allowed: full"):
        adapted("norm", "vgg11")


def test_blocks_without_normalisation_are_not_normalisation_layers() -> None:
    with pytest.raises(ValueError, match=r"^adapt is norm, but the encoder has no normalisation layers"):
        adapted("norm", "tu-dm_nfnet_f0")


def test_a_layer_whose_name_ends_with_that_of_a_selected_one_gets_no_adapter() -> None:
    nested = adapted(LoraSettings(), "xception")
    plain = make_network("xception")
    assert adapters_of(nested) == {
        name for name, layer in plain.encoder.named_modules() if type(layer) is nn.Conv2d and layer.groups == 1
    }


def test_adapters_start_as_the_unchanged_network() -> None:
    images = torch.rand(2, 3, 64, 64)
    for backbone, architecture in (("resnet18", "unet"), (VIT, "linear")):
        plain, network = make_network(backbone, architecture), adapted(LoraSettings(), backbone, architecture)
        torch.testing.assert_close(network.eval()(images), plain.eval()(images))


def test_only_adapters_change_in_the_encoder() -> None:
    network = adapted(LoraSettings(rank=2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    update(network)
    update(network)  # the first matrix has a gradient once the second one is not 0
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    adapters = {name for name in before if ".lora_" in name}
    assert adapters
    assert {name for name in changed if name.startswith("encoder.")} == adapters


def test_batch_norm_keeps_its_statistics_under_adapters_and_follows_the_images_under_norm_and_bias() -> None:
    for settings, follows in ((LoraSettings(), False), ("norm", True), ("bias", True)):
        network = adapted(settings)
        before = {name: value.clone() for name, value in network.named_buffers() if "running_mean" in name}
        update(network)
        moved = {name for name, value in network.named_buffers() if name in before and not value.equal(before[name])}
        encoder = {name for name in before if name.startswith("encoder.")}
        assert moved & encoder == (encoder if follows else set())
        assert moved - encoder == before.keys() - encoder


@pytest.mark.parametrize(
    ("backbone", "architecture", "layer"),
    [(VIT, "linear", "model.blocks.3.attn.qkv"), ("resnet18", "unet", "layer3.0.conv2")],
)
def test_merged_weights_are_the_sum_of_weights_and_scaled_product(backbone: str, architecture: str, layer: str) -> None:
    plain, network = (
        make_network(backbone, architecture),
        adapted(LoraSettings(rank=3, alpha=6), backbone, architecture),
    )
    for _ in range(3):
        update(network)
    images = torch.rand(2, 3, 64, 64)
    unmerged = network.eval()(images)
    matrices: dict[str, Tensor] = {
        match[1]: tensor.detach().clone()
        for name, tensor in network.encoder.named_parameters()
        if (match := re.fullmatch(rf"{re.escape(layer)}\.lora_([AB])\.default\.weight", name))
    }
    merge_adapters(network)

    before, after = (dict(model.encoder.named_parameters())[f"{layer}.weight"] for model in (plain, network))
    assert matrices["A"].shape[0] == matrices["B"].shape[1] == 3
    product = torch.einsum("or,r...->o...", matrices["B"].flatten(1), matrices["A"])
    torch.testing.assert_close(after, before + 6 / 3 * product)
    assert not torch.equal(after, before)
    torch.testing.assert_close(network.eval()(images), unmerged, rtol=1e-4, atol=1e-5)
    assert network.state_dict().keys() == plain.state_dict().keys()


def adapters_of(network: Network) -> set[str]:
    return {name.partition(".lora_A")[0].removeprefix("encoder.") for name in trained(network) if ".lora_A" in name}


def test_adapters_are_in_the_projections_of_attention_or_in_all_mergeable_layers() -> None:
    assert {name.rpartition(".")[2] for name in adapters_of(adapted(LoraSettings(), VIT, "linear"))} == {"qkv"}
    assert {name.rpartition(".")[2] for name in adapters_of(adapted(LoraSettings(), "mit_b0", "fpn"))} == {"q", "kv"}
    network = make_network("tu-mobilenetv3_small_100", "fpn")
    mergeable = {
        name for name, layer in network.encoder.named_modules() if type(layer) is nn.Conv2d and layer.groups == 1
    }
    assert adapters_of(adapted(LoraSettings(), "tu-mobilenetv3_small_100", "fpn")) == mergeable


def test_targets_select_the_layers_of_adapters() -> None:
    network = adapted(LoraSettings(targets=("attn.proj", "fc1")), VIT, "linear")
    blocks = [f"model.blocks.{number}" for number in range(12)]
    expected = {f"{block}.attn.proj" for block in blocks} | {f"{block}.mlp.fc1" for block in blocks}
    assert adapters_of(network) == expected


def test_unknown_targets_are_refused_with_the_names_of_the_encoder() -> None:
    expected = r"^adapt.targets has query; allowed: layers of this encoder .* proj, qkv, fc1, fc2; correct the names"
    with pytest.raises(ValueError, match=expected):
        adapted(LoraSettings(targets=("query", "qkv")), VIT, "linear")


def test_layers_whose_weights_are_used_without_a_call_get_no_adapter() -> None:
    network = make_network("tu-beit_base_patch16_224", "linear")
    size = torch.zeros(1, 3, 224, 224)
    adapt(network, LoraSettings(), size)
    names = adapters_of(network)
    assert {name.rpartition(".")[2] for name in names} >= {"proj", "fc1", "fc2"}
    assert not any(name.endswith("qkv") for name in names)


def test_frozen_stages_stay_frozen_and_get_adapters_once_they_are_trained() -> None:
    for settings in ("norm", LoraSettings()):
        network, free = adapted(settings), trained(adapted(settings))
        network.freeze(["encoder.stage1", "encoder.stage2"])
        frozen = {name for name in free if name.startswith(("encoder.conv1", "encoder.bn1", "encoder.layer1"))}
        assert frozen
        assert trained(network) == free - frozen
        network.unfreeze(["encoder.stage1", "encoder.stage2"])
        assert trained(network) == free


@pytest.mark.parametrize(("backbone", "architecture"), [("resnet18", "unet"), (VIT, "linear")])
def test_adapters_have_the_learning_rate_of_their_layer(backbone: str, architecture: str) -> None:
    settings = NetworkOptimizerSettings(layer_decay=0.5)
    rates: list[dict[str, float]] = []
    for network in (make_network(backbone, architecture), adapted(LoraSettings(), backbone, architecture)):
        name_of = {id(value): name for name, value in network.named_parameters()}
        groups = parameter_groups(network, settings)
        rates.append({name_of[id(value)]: group[FACTOR] for group in groups for value in group["params"]})
    plain, with_adapters = rates
    for name, rate in with_adapters.items():
        layer = re.sub(r"\.(base_layer|lora_[AB]\.default)\.", ".", name)
        assert rate == plain[layer]
