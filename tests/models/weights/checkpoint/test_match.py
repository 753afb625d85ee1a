"""Checkpoints in published layouts fill encoders completely, or are refused with the tensors that do not fit."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.architectures.parts import Blueprint
from models.build import build
from models.encoders.library import plain, pyramid
from models.encoders.vision import smp, timm
from models.weights.checkpoint.match import Match, match, specs_of
from models.weights.checkpoint.read import Checkpoint

Tensors = dict[str, Tensor]
HEAD = {"head.weight": torch.zeros(10, 192), "head.bias": torch.zeros(10)}


def published_network(name: str) -> nn.Module:
    """Return a network of torchvision, which `models.encoders.vision` makes importable."""
    network: nn.Module = importlib.import_module("torchvision.models").get_model(name)
    return network


def randomised(network: nn.Module) -> Tensors:
    """Return different values for every tensor, so that a swap is detected."""
    torch.manual_seed(3)
    return {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor + 5
        for name, tensor in network.state_dict().items()
    }


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without(tensors: Mapping[str, Tensor], *starts: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}


RESNET = randomised(published_network("resnet18"))
RESNET_ENCODER = without(RESNET, "fc.")
VIT = without(randomised(timm.create_model("vit_tiny_patch16_224")), "head.")
DENSENET = without(randomised(published_network("densenet121")), "classifier.")
CONVNEXT = randomised(timm.create_model("convnext_atto"))


def moco_v2() -> Tensors:
    head = {"fc.0.weight": torch.zeros(4, 4), "fc.2.bias": torch.zeros(4)}
    return {
        **prefixed("module.encoder_q.", RESNET_ENCODER | head),
        **prefixed("module.encoder_k.", {name: tensor + 1 for name, tensor in (RESNET_ENCODER | head).items()}),
        "module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }  # fmt: skip


def moco_v3() -> Tensors:
    network = VIT | {"head.0.weight": torch.zeros(4, 4), "head.1.running_mean": torch.zeros(4)}
    momentum = {name: tensor + 1 for name, tensor in network.items()}
    return {
        **prefixed("module.base_encoder.", network), **prefixed("module.momentum_encoder.", momentum),
        "module.predictor.0.weight": torch.zeros(4, 4),
    }  # fmt: skip


def mae() -> Tensors:
    decoder = ("decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.attn.qkv.weight", "decoder_norm.bias",
               "decoder_pred.weight", "mask_token")  # fmt: skip
    return VIT | {name: torch.zeros(1, 1, 3) for name in decoder}


def radimagenet(network: nn.Module, state: Tensors, children: slice) -> Tensors:
    """Return the state of a sequence of a network's children, as in the files of RadImageNet."""
    network.load_state_dict(state, strict=False)
    return prefixed("backbone.", nn.Sequential(*list(network.children())[children]).state_dict())


def lightly() -> Tensors:
    return {
        **prefixed("teacher_backbone.", RESNET_ENCODER),
        **prefixed("student_backbone.", {name: tensor + 1 for name, tensor in RESNET_ENCODER.items()}),
        "teacher_head.layers.0.weight": torch.zeros(2, 2), "projection_head.layers.0.weight": torch.zeros(2, 2),
        "criterion.center": torch.zeros(1, 2),
    }  # fmt: skip


def in_chunks(tensors: Tensors) -> Tensors:
    """Return names of DINOv2's blocks in chunks of four."""
    return {
        name.replace("blocks.", f"blocks.{int(name.split('.')[1]) // 4}.", 1) if name.startswith("blocks.") else name:
        tensor for name, tensor in tensors.items()
    }  # fmt: skip


def smp_unet() -> Tensors:
    network = smp.Unet("resnet18", encoder_weights=None, classes=2)
    network.encoder.load_state_dict(dict(RESNET))
    return dict(network.state_dict())


LAYOUTS: dict[str, tuple[str, Callable[[], Tensors], Tensors]] = {
    "torchvision": ("resnet18", lambda: RESNET, RESNET),
    "DataParallel": ("resnet18", lambda: prefixed("module.", RESNET), RESNET),
    "torch.compile": ("resnet18", lambda: prefixed("_orig_mod.", RESNET), RESNET),
    "Lightning": ("resnet18", lambda: prefixed("model.", RESNET), RESNET),
    "MoCo v2": ("resnet18", moco_v2, RESNET),
    "MoCo v2 with timm": ("tu-resnet18", moco_v2, RESNET),
    "MoCo v3": ("tu-vit_tiny_patch16_224", moco_v3, VIT),
    "DINO": ("tu-vit_tiny_patch16_224", lambda: prefixed("backbone.", VIT) | HEAD, VIT),
    "MAE": ("tu-vit_tiny_patch16_224", mae, VIT),
    "DINOv2 in chunks": ("tu-vit_tiny_patch16_224", lambda: prefixed("backbone.", in_chunks(VIT)), VIT),
    "lightly": ("resnet18", lightly, RESNET),
    "RadImageNet ResNet": ("resnet18", lambda: radimagenet(published_network("resnet18"), RESNET, slice(9)), RESNET),
    "RadImageNet ResNet with timm": (
        "tu-resnet18", lambda: radimagenet(published_network("resnet18"), RESNET, slice(9)), RESNET),
    "RadImageNet DenseNet": (
        "densenet121", lambda: radimagenet(published_network("densenet121"), DENSENET, slice(1)), DENSENET),
    "early torchvision": ("densenet121", lambda: {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in name else name: tensor
        for name, tensor in DENSENET.items()}, DENSENET),
    "smp": ("resnet18", smp_unet, RESNET),
    "timm": ("tu-convnext_atto", lambda: CONVNEXT, CONVNEXT),
}  # fmt: skip


def network_of(backbone: str, *, channels: int = 3, architecture: str | None = None) -> Any:  # noqa: ANN401
    side = 224 if "vit" in backbone else 64
    return build(Blueprint(
        architecture=architecture, backbone=backbone, channels=channels, outputs=1, shape=(side, side)
    ))  # fmt: skip


def matched(
    tensors: Mapping[str, Tensor], backbone: str, *, channels: int = 3, architecture: str | None = None,
    allow: tuple[str, ...] = (),
) -> Match:  # fmt: skip
    encoder = network_of(backbone, channels=channels, architecture=architecture).encoder
    checkpoint = Checkpoint(kind="torch", wrapper=(), tensors=tensors)
    return match(checkpoint, specs_of(encoder), backbone=backbone, channels=channels, allow=allow)


def reference(backbone: str, published: Tensors) -> Tensors:
    """Return the encoder's tensors as loaded by the library's own function."""
    if backbone.startswith("tu-"):
        make = plain if "vit" in backbone else pyramid
        head = {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)} if "vit" in backbone else {}
        options = {"pretrained_cfg_overlay": {"state_dict": {**published, **head}}}
        return dict(make(backbone, channels=3, weights=True, options=options).state_dict())
    encoder = smp.encoders.get_encoder(backbone, weights=None)
    encoder.load_state_dict(dict(published))
    return dict(encoder.state_dict())


@pytest.mark.parametrize(("backbone", "layout", "published"), LAYOUTS.values(), ids=LAYOUTS)
def test_published_layouts_fill_every_tensor_with_its_value(
    backbone: str, layout: Callable[[], Tensors], published: Tensors
) -> None:
    tensors = layout()
    result = matched(tensors, backbone)
    assert result.problem is None
    assert result.tensors.keys() == network_of(backbone).encoder.state_dict().keys()
    for name, value in reference(backbone, published).items():
        if name in result.tensors:  # timm's transformers have a classifier
            assert torch.equal(value, result.tensors[name]), name
    listed = [*result.sources.values(), *(name for names in result.left_out.values() for name in names)]
    assert sorted(listed) == sorted(tensors)


@pytest.mark.parametrize("backbone", ["resnet18", "tu-resnet18"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_first_convolution_for_three_channels_is_adapted_as_for_published_weights(
    backbone: str, channels: int
) -> None:
    result = matched(moco_v2(), backbone, channels=channels)
    assert result.problem is None
    (rule,) = (rule for rule in result.rules if "adapted" in rule)
    assert rule == f"`module.encoder_q.conv1.weight` adapted from 3 to {channels} channels"
    (name,) = (name for name, source in result.sources.items() if source == "module.encoder_q.conv1.weight")
    weight = RESNET["conv1.weight"]
    expected = (
        weight.sum(1, keepdim=True) if channels == 1
        else torch.stack([weight[:, channel % 3] for channel in range(channels)], 1) * 3 / channels
    )  # fmt: skip
    torch.testing.assert_close(result.tensors[name], expected)


def test_other_channels_than_three_are_not_adapted() -> None:
    result = matched(RESNET | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, "resnet18")
    assert result.problem == ("tensors 1 of another shape (conv1.weight (64, 1, 7, 7) instead of (64, 3, 7, 7))")


def test_deeper_stages_unused_by_an_architecture_are_excluded() -> None:
    result = matched(RESNET, "resnet18", architecture="pspnet")
    assert result.problem is None
    unused = result.left_out["layers that this encoder does not use"]
    assert unused
    assert all(name.startswith(("layer3", "layer4")) for name in unused)


def test_position_embeddings_of_another_grid_are_resampled_by_timm() -> None:
    larger = without(randomised(timm.create_model("vit_tiny_patch16_384")), "head.")
    result = matched(prefixed("backbone.", larger), "tu-vit_tiny_patch16_224")
    assert result.problem is None
    expected = timm.layers.resample_abs_pos_embed(larger["pos_embed"], [14, 14], num_prefix_tokens=1)
    torch.testing.assert_close(result.tensors["model.pos_embed"], expected)
    assert "`backbone.pos_embed` converted by timm from (1, 577, 192) to (1, 197, 192)" in result.rules


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_weights_of_a_stage_fit_any_architecture_including_half_precision(prefix: str) -> None:
    network = network_of("tu-resnet18", channels=1, architecture="unet")
    tensors = prefixed(prefix, network.encoder.state_dict())
    if prefix:
        tensors |= {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(prefix)}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    result = matched(half, "tu-resnet18", channels=1, architecture="fpn")
    assert result.problem is None
    assert len(result.tensors) == len(network.encoder.state_dict())
    assert set(result.left_out) <= {"the decoder", "heads"}


MISFITS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "foreign names": (lambda state: prefixed("x.", state), "120 missing (conv1.weight"),
    "integers": (lambda state: {k: value.to(torch.int8) for k, value in state.items()}, "100 of another data type"),
    "one too many": (lambda own: own | {"more": torch.zeros(1)}, "1 unknown (more (1,))"),
    "one too few": (lambda own: without(own, "layer1.0.bn1.bias"), "1 missing (layer1.0.bn1.bias (64,))"),
    "endless name": (lambda own: own | {"n" * 9_000: torch.zeros(1)}, f"1 unknown ({'n' * 100}...)"),
    "transposed": (lambda own: own | {"conv1.weight": torch.zeros(3, 64, 7, 7)}, "1 of another shape"),
    "parts named like heads": (lambda own: own | {"layer5.0.mlp.weight": torch.zeros(1), "a.fc.weight": torch.zeros(1)},
                               "2 unknown (layer5.0.mlp.weight (1,), a.fc.weight (1,))"),
    "another network": (lambda _: randomised(published_network("resnet50")), "of another shape"),
    "nothing": (lambda _: {}, "100 missing"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_counted_and_named(change: Callable[[Tensors], Tensors], message: str) -> None:
    problem = matched(change(RESNET_ENCODER), "resnet18").problem
    assert problem is not None
    assert message.replace("120", "100") in problem
    assert "\n" not in problem


def test_counters_may_be_missing() -> None:
    early = {name: value for name, value in RESNET_ENCODER.items() if "tracked" not in name}
    result = matched(early, "resnet18")
    assert result.problem is None
    assert {reason: len(names) for reason, names in result.kept.items()} == {"counters of batch norm": 20}


def test_only_tensors_allowed_by_name_may_be_missing_or_unexpected() -> None:
    partial = without(RESNET_ENCODER, "layer4.") | {"extra.weight": torch.zeros(1), "layer3.odd": torch.zeros(1)}
    assert matched(partial, "resnet18", allow=("layer4.*",)).problem == (
        "tensors 2 unknown (extra.weight (1,), layer3.odd (1,))"
    )
    result = matched(partial, "resnet18", allow=("layer4.*", "extra.*", "layer3.odd"))
    assert result.problem is None
    assert result.left_out == {"allowed by the study": ["extra.weight", "layer3.odd"]}
    allowed = result.kept["allowed by the study"]
    assert allowed
    assert all(name.startswith("layer4.") for name in allowed)
    assert not any(name.startswith("layer4.") for name in result.tensors)


def test_the_description_has_the_rules_and_the_numbers_of_tensors() -> None:
    assert matched(moco_v2(), "resnet18").text == (
        "torch file; prefix `module.encoder_q.` removed; 120 tensors matched; left out: the other network of "
        "self-supervised training (122), the queue (2), heads (2)"
    )
