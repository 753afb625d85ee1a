"""The committed table agrees with the installed libraries."""

import json
from dataclasses import asdict

import pytest

from models.catalog.pins import pins_of, read_table, with_pins
from models.catalog.registry import TABLE, backbone, backbones
from models.catalog.table import describe, names
from models.encoders.vision import smp

OWN = [name for name in smp.encoders.encoders if not name.startswith("timm-") and not name.endswith("_dilated")]
TIMM = [
    "tu-resnet50",
    "tu-convnext_tiny",
    "tu-swin_tiny_patch4_window7_224",
    "tu-vit_tiny_patch16_224",
    "tu-vit_small_patch14_dinov2",
    "tu-deit_tiny_patch16_224",
    "tu-maxvit_tiny_tf_224",
    "tu-hrnet_w18_small",
    "tu-xception41",
    "tu-efficientnet_b0",
    "tu-mobilenetv3_small_100",
    "tu-regnety_002",
    "tu-pvt_v2_b0",
    "tu-res2net50_14w_8s",
    "tu-test_vit",
]
QUICK = ["resnet50", "vgg16", "xception", "mobilenet_v2", "mit_b0", "tu-test_resnet", "tu-test_vit", "tu-xception41"]


def generated(name: str) -> object:
    row = describe(name)
    if row is None:
        return None
    weights = with_pins(row.weights, pins_of(read_table()))
    return json.loads(json.dumps(asdict(row) | {"weights": weights}))


def committed(name: str) -> object:
    return json.loads(json.dumps(asdict(backbone(name))))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
def test_a_row_equals_the_generated_one(name: str) -> None:
    assert generated(name) == committed(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*OWN, *TIMM])
def test_every_row_of_the_library_equals_the_generated_one(name: str) -> None:
    assert generated(name) == committed(name)


@pytest.mark.filterwarnings("ignore")
def test_backbones_without_a_decoder_are_excluded() -> None:
    assert describe("tu-cait_xxs24_224") is None
    assert "tu-cait_xxs24_224" not in backbones()


def test_the_table_has_no_name_unknown_to_the_libraries() -> None:
    assert set(backbones()) <= set(names())


def test_every_backbone_of_the_library_has_weights_with_a_pinned_revision() -> None:
    for name in OWN:
        for identity in backbone(name).weights.values():
            assert len(identity.partition("@")[2]) == 40


def test_the_table_has_one_row_per_line() -> None:
    assert len(TABLE.read_text().splitlines()) == len(backbones()) + 2
