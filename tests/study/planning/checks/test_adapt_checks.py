"""Stages that train a missing or frozen part of the encoder, and parts of random encoders."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from study.errors import ConfigError
from study.planning.checks import adapt_checks
from study.search.load import load_plan
from tests.support.documents import BASE, base

FROZEN = ["boxes", {"stage": "segment", "freeze": ["encoder"]}]
LATER = ["boxes", {"stage": "segment", "freeze": ["encoder"], "unfreeze_after": 1}]


def problems(changes: dict[str, Any], cache: Path) -> list[str]:
    try:
        load_plan(base(changes), file="F", cache=cache)
    except ConfigError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


VALUES = "'full', 'norm', 'bias' or 'lora' or a mapping with name and rank and alpha and targets"
REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"stages.segment.adapt": "norm", "pathways.one_step": FROZEN},
        "pathways.one_step[1].freeze: freezes the encoder, of which segment trains a part (adapt: norm); allowed: "
        "one of the two; remove freeze, or set adapt: full",
    ),
    (
        {"stages.segment.adapt": "norm", "compare.backbone": ["vgg11"]},
        "stages.segment: adapt is norm, but the encoder has no normalisation layers; allowed: full or lora; choose one "
        "of them, or another backbone (encoder vgg11)",
    ),
    (
        {"stages.segment.adapt": {"name": "lora", "targets": ["qkv"]}},
        "stages.segment: adapt.targets has qkv; allowed: layers of this encoder that support adapters: conv1, conv2, 0"
        "; correct the names, or leave targets out (encoder resnet18)",
    ),
    ({"stages.segment.adapt": "prefix"}, f"stages.segment.adapt: is prefix; allowed: {VALUES}"),
    (
        {"stages.segment.adapt": {"name": "lora", "rank": 0}},
        "stages.segment.adapt.rank: is 0; allowed: greater than or equal to 1",
    ),
]


@pytest.mark.parametrize(("changes", "line"), REFUSED, ids=str)
def test_parts_that_cannot_be_trained_are_refused(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert problems(changes, tmp_path) == [line]


def test_adapters_and_parts_of_an_initially_frozen_encoder_are_allowed(tmp_path: Path) -> None:
    assert not problems({"stages.segment.adapt": "lora"}, tmp_path)
    assert not problems({"stages.segment.adapt": "norm", "pathways.one_step": LATER}, tmp_path)


def test_adapters_without_their_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_checks, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    (line,) = problems({"compare": {**BASE["compare"], "segment.adapt": ["norm", "lora"]}}, tmp_path)
    allowed = "with the package peft; run `pip install peft`, or choose full, norm or bias"
    assert line == f"stages.segment.adapt: is lora; allowed: {allowed}"


def adapt_warnings(changes: dict[str, Any], cache: Path) -> list[str]:
    warnings = load_plan(base(changes, without=("compare.baseline",)), file="F", cache=cache).warnings
    return [warning for warning in warnings if "adapt" in warning]


def test_partly_trained_random_encoders_cause_a_warning(tmp_path: Path) -> None:
    alone, carried = {"pathways": {"none": ["segment"]}}, {"pathways": {"two": ["boxes", "segment"]}}
    (warning,) = adapt_warnings({"stages.segment.adapt": "bias", **alone}, tmp_path)
    assert warning.startswith("stages.segment: adapt: bias keeps most of an encoder with random weights; allowed: ")
    assert not adapt_warnings(alone, tmp_path)
    assert not adapt_warnings({"stages.segment.adapt": "bias", **carried}, tmp_path)
