import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.architectures import ARCHITECTURES
from models.catalog.registry import (
    encoder_depth,
    encoder_stages,
    has_weights,
    probe_size,
    problem,
    published_weights,
    statistics,
    weights_problem,
)


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from models.catalog import registry; registry.problem('unet', 'resnet50', shape=(256, 256)); "
        "registry.problem('xnet', 'own', shape=(256, 256)); registry.encoder_stages('xnet', 'own'); "
        "registry.probe_size('xnet', 'own'); registry.weights_problem('own', 'random'); "
        "assert not {'torch', 'timm', 'huggingface_hub'} & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3", "deeplabv3plus"])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet50", "resnext50_32x4d", "xception", "tu-xception41"])
def test_the_networks_of_the_published_studies_can_be_built(architecture: str, backbone: str) -> None:
    assert problem(architecture, backbone, shape=(256, 256)) is None


@pytest.mark.parametrize(
    ("architecture", "backbone", "size", "expected"),
    [
        ("unett", "resnet50", 256, "architecture is unett; allowed: unet, unetplusplus.*; did you mean unet"),
        ("unet", "resnet5", 256, r"backbone is resnet5; allowed: \d+ names .*; did you mean .*resnet50"),
        ("unet", "zzzz", 256, "backbone is zzzz; allowed: .*; choose one of them"),
        ("unet", "tu-resnet50.a1_in1k", 256, "write backbone: tu-resnet50 with initial_weights: a1_in1k"),
        ("unet", "own", 256, "backbone is own under unet; allowed: a named backbone"),
        (None, "own", 256, "backbone is own without an architecture; allowed: with unet_plain, xnet, segnet"),
        ("xnet", "resnet50", 256, "backbone is resnet50 under xnet; allowed: own; change one of them"),
        ("segnet", "vgg16", 256, "backbone is vgg16 under segnet; allowed: own, vgg16_bn; change one of them"),
        ("unet_plain", "own", 31, "image size is 31; allowed: 32 and more; set image.size to 32"),
        ("deeplabv3", "densenet121", 256, "under deeplabv3; allowed: those that can be dilated"),
        ("linknet", "mit_b0", 256, "under linknet; allowed: those with a feature map at stride 2"),
        ("linknet", "tu-vit_tiny_patch16_224", 256, "under linknet; allowed: those with a feature map at stride 2"),
        ("dpt", "resnet50", 256, "under dpt; allowed: plain vision transformers"),
        ("dpt", "tu-vit_small_patch14_dinov2", 256, "with patches of 8, 16 or 32 pixels"),
        ("pspnet", "tu-hrnet_w18_small", 256, "allowed: those whose deeper stages can be left out"),
        ("unet", "resnet50", 250, "image size is 250; allowed: multiples of 32 from 32 on; set image.size to 256"),
        ("pan", "resnet50", 64, "image size is 64; allowed: multiples of 16 from 128 on; set image.size to 128"),
        ("unet", "tu-maxvit_tiny_tf_224", 256, "allowed: 224; set image.size to 224"),
        (None, "resnet50", 16, "image size is 16; allowed: 32 and more"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(
    architecture: str | None, backbone: str, size: int, expected: str
) -> None:

    message = problem(architecture, backbone, shape=(size, size))
    assert message is not None
    assert re.search(expected, message), message
    assert "\n" not in message
    assert len(message) < 300


OWN = [name for name, row in ARCHITECTURES.items() if row.own_encoder]


@pytest.mark.parametrize("architecture", OWN)
@pytest.mark.parametrize("size", [32, 33, 200, 250])
def test_architectures_with_their_own_encoder_accept_any_size_from_32_on(architecture: str, size: int) -> None:
    assert problem(architecture, "own", shape=(size, size)) is None


def test_both_sides_of_a_rectangle_must_fit_the_network() -> None:
    assert problem("unet", "resnet50", shape=(256, 96)) is None
    assert problem("unet", "resnet50", shape=(256, 100)) == (
        "image size is [256, 100]; allowed: multiples of 32 from 32 on; set image.size to [256, 96]"
    )
    assert "allowed: 224; set image.size to 224" in str(problem("unet", "tu-maxvit_tiny_tf_224", shape=(224, 256)))


def test_invalid_upsampling_is_refused_with_the_methods_of_its_architecture() -> None:
    message = problem("unet", "resnet50", shape=(256, 256), upsampling="unpool")
    assert message == (
        "upsampling is unpool under unet; allowed: nearest, bilinear, transposed; choose one of these or leave it out"
    )
    assert problem("segnet", "own", shape=(256, 256), upsampling="unpool") is None
    assert problem(None, "resnet50", shape=(256, 256), upsampling="unpool") is None


def test_an_own_encoder_has_random_weights_or_those_of_a_file() -> None:
    assert weights_problem("own", "random") is None
    assert not has_weights("own", "imagenet")
    message = weights_problem("own", "imagenet")
    assert message == "initial_weights of own is imagenet; allowed: random, {file: path}; choose one of them"


def test_own_encoders_normalise_images_like_named_ones() -> None:
    assert statistics("own") == statistics("resnet50")


@pytest.mark.parametrize(
    ("architecture", "backbone", "stages"),
    [
        ("unet", "vgg16", 5),
        ("pspnet", "vgg16", 4),
        ("pspnet", "resnet50", 3),
        ("pspnet", "mit_b0", 2),
        ("unet_plain", "own", 5),
        ("xnet", "own", 4),
        (None, "tu-vit_tiny_patch16_224", 4),
    ],
)
def test_stages_are_those_with_maps_used_by_the_architecture(
    architecture: str | None, backbone: str, stages: int
) -> None:
    assert encoder_stages(architecture, backbone) == stages


@pytest.mark.parametrize(
    ("architecture", "backbone", "depth"),
    [
        (None, "resnet18", 5),
        ("unet", "resnet18", 5),
        ("pspnet", "resnet18", 3),
        ("xnet", "own", 4),
        ("segnet", "own", 5),
        ("pspnet", "tu-vit_tiny_patch16_224", 5),
    ],
)
def test_the_depth_is_that_of_the_trained_encoder(architecture: str | None, backbone: str, depth: int) -> None:
    assert encoder_depth(architecture, backbone) == depth


def test_weights_of_the_library_have_a_repository_and_a_pinned_revision() -> None:
    weights = published_weights("resnet50", "imagenet")
    assert str(weights) == "smp-hub/resnet50.imagenet@00cb74e366966d59cd9a35af57e618af9f88efe9"
    assert weights.is_pinned


def test_weights_trained_on_other_images_are_not_called_imagenet() -> None:
    assert not has_weights("tu-vit_small_patch14_dinov2", "imagenet")
    assert has_weights("tu-vit_small_patch14_dinov2", "lvd142m")


def test_unknown_weights_are_refused_with_the_known_ones() -> None:
    assert weights_problem("resnet50", "random") is None
    message = weights_problem("resnet50", "imagenett")
    assert message is not None
    assert "allowed: random, imagenet, ssl, swsl, {file: path}; did you mean imagenet?" in message
    with pytest.raises(ValueError, match="imagenett"):
        published_weights("resnet50", "imagenett")


@pytest.mark.parametrize("architecture", [None, *ARCHITECTURES])
def test_the_probing_size_is_allowed(architecture: str | None) -> None:
    has_own_encoder = architecture is not None and ARCHITECTURES[architecture].own_encoder
    backbone = "own" if has_own_encoder else "tu-vit_tiny_patch16_224" if architecture == "dpt" else "resnet18"
    size = probe_size(architecture, backbone)
    assert problem(architecture, backbone, shape=(size, size)) is None
