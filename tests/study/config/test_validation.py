"""From a raw document to a spec: errors refer to the keys of the file, without errors that only follow from others."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from study.config.document import with_paths
from study.config.validation import parse
from study.errors import ConfigError
from study.search.load import load_plan
from tests.support.documents import BASE, base, compare

LINE = re.compile(r"^F: (\S[^:]*: )?\S.*; ?allowed: \S.*$")
JARGON = re.compile(r"pydantic|\bInput\b|should|\btuple\b|\bdict\b|NoneType|instance of|\[key\]|literal\[")
RICH = base({
    "compare": {
        **BASE["compare"],
        "pathway": ["none", "one_step", "frozen"],
        "initial_weights": ["random", "imagenet"],
        "segment.loss": [{"dice": 1.0}, {"tversky": 1.0, "focal": 2.0}],
        "image.fit": ["stretch", "letterbox"],
        "exclude": [{"pathway": "one_step", "segment.loss": {"dice": 1.0}}],
        "include": [{"architecture": "fpn"}],
    },
    "data.clinic.images": 12,
    "data.hospital.images": 12,
    "stages.segment.optimizer": {"name": "adam", "lr": 0.1},
    "stages.segment.class_weights": {"heart": 2.0},
    "stages.centre": {"task": "localisation", "data": "clinic", "epochs": 1, "structure": "heart"},
    "stages.centre.augment": {"vertical_flip": 0.5, "crop": [0.1, 0.3], "border": "reflect"},
    "pathways.frozen": [
        "centre", {"stage": "segment", "freeze": ["encoder"], "unfreeze_after": 2, "keep_dropout": True},
    ],
    "published": [{"source": "A paper", "metric": "mse_pixels", "stage": "centre", "split": "test",
                   "values": [{"value": 200.0}]}],
    "data.hospital.split": {"test": "folds", "validation": {"share": 0.25}, "seed": 3},
    "metrics": {"classes": ["heart"], "background": True},
    "resources": {"cpus": 1, "gpus": "auto"},
})  # fmt: skip
VALUES: list[Any] = [None, -5, "x", [], [None], {"a": 1}, {5: 1}, float("inf")]


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _paths(item, (*path, position))


def _with_value(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    document = with_paths(RICH, {})
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return document


@pytest.mark.parametrize("section", list(RICH))
def test_no_invalid_value_raises_or_shows_internal_names(section: str, tmp_path: Path) -> None:
    for path in _paths({section: RICH[section]}):
        for value in VALUES:
            try:
                load_plan(_with_value(path, value), file="F", cache=tmp_path)
            except ConfigError as refused:
                for line in str(refused).splitlines():
                    assert LINE.match(line), (path, value, line)
                    assert not JARGON.search(line), (path, value, line)


def _messages(document: dict[str, Any]) -> list[str]:
    return [f"{problem.path}: {problem.message}" for problem in parse(document)[1]]


def test_the_complete_document_is_valid(tmp_path: Path) -> None:
    load_plan(RICH, file="F", cache=tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"stages.segment.epochs": 0},
        {"stages.segment.loss": {"dice": -1.0}},
        {"compare.labelled_fraction": [2.0]},
        {"compare.architecture": "unet"},
        {"stages.classify.task": "classify"},
        {"data.clinic.images": 0},
        {"pathways.one_step": ["classify", {"stage": "segment", "carry": "all", "unfreeze_after": 1}]},
        {"name": 5},
    ],
    ids=str,
)
def test_an_error_is_reported_once_without_its_consequences(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_plan(base(changes), file="F", cache=tmp_path)
    assert len(refused.value.problems) == 1


CONSISTENCY: dict[str, Any] = {"task": "consistency", "data": "hospital", "steps": 4}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "crop": ({"stages.segment.augment": {"crop": 1.2}},
             "stages.segment.augment.crop: is 1.2; allowed: less than 1 or a list, such as [a, b]"),
    "crops in the wrong order": (
        {"stages.segment.augment": {"crop": [0.4, 0.1]}},
        "stages.segment.augment: crop is [0.4, 0.1]; allowed: the smaller number first; write crop: [0.1, 0.4]"),
    "views": (
        {"stages.segment": {"task": "contrastive", "data": "hospital", "epochs": 1, "augment": {"preset": None}}},
        "stages.segment: augment changes nothing, so that the views of an image are equal; allowed: at least one "
        "transform; leave out augment.preset, or set preset: views"),
    "early stopping": (
        {"stages.segment": {"task": "self_distillation", "data": "hospital", "epochs": 1,
                            "early_stopping": {"patience": 2}}},
        "stages.segment: early_stopping is set under self_distillation, which keeps the last epoch, as its loss is "
        "also small for equal embeddings; allowed: under other tasks; remove it"),
    "momentum": (
        {"stages.segment": {"task": "contrastive", "data": "hospital", "epochs": 1, "momentum": 0.5}},
        "stages.segment: momentum is 0.5 with queue 0; allowed: with a queue, whose embeddings it averages; remove it, "
        "or set queue"),
    "average of a mean teacher": (
        {"stages.segment": CONSISTENCY | {"average": {"name": "ema"}}},
        "stages.segment: average is ema under mean_teacher, which keeps its teacher, a moving average; allowed: under "
        "fixmatch, unimatch or cross_pseudo; remove it, or set consistency.momentum"),
    "strong views that move pixels": (
        {"stages.segment": CONSISTENCY | {"consistency": {"strong": {"flip": 0.5}}}},
        "stages.segment.consistency.strong: flip is 0.5, but all views of an image show the same pixels; allowed: hue, "
        "saturation, brightness, contrast, gamma, blur, sharpness, low_resolution, noise, dropout; remove it, or set "
        "it in augment, which is for all views"),
    "strong views of a method without them": (
        {"stages.segment": CONSISTENCY | {"consistency": {"method": "cross_pseudo", "strong": {"blur": 1}}}},
        "stages.segment.consistency: strong is set under cross_pseudo; allowed: under mean_teacher or fixmatch or "
        "unimatch; remove it, change the method, or exclude the combination with compare.exclude"),
    "equal views": (
        {"stages.segment": CONSISTENCY | {
            "consistency": {"method": "unimatch", "strong": {"preset": None}, "cutmix": 0}}},
        "stages.segment.consistency: strong changes nothing and cutmix is 0 under unimatch, so that weak and strong "
        "views are equal; allowed: at least one transform, or cutmix above 0; leave out strong.preset, or raise cutmix"
    ),
    "parts of batches": (
        {"stages.segment": CONSISTENCY | {"accumulate": 2}},
        "stages.segment.accumulate: is 2; allowed: 1"),
    "border": ({"stages.segment.augment": {"border": "mirror"}},
               "stages.segment.augment.border: is mirror; allowed: 'constant' or 'reflect'"),
    "dropout without frozen parts": (
        {"pathways.one_step": ["classify", {"stage": "segment", "keep_dropout": True}]},
        "pathways.one_step[1]: keep_dropout without freeze; allowed: together with freeze; name what is frozen"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), FAULTS.values(), ids=FAULTS)
def test_an_error_is_reported_with_the_value_and_the_allowed_values(changes: dict[str, Any], line: str) -> None:
    assert _messages(base(changes)) == [line]


@pytest.mark.parametrize(
    ("task", "keys", "path", "suggestion"),
    [
        ("adversarial", {"lambda1": 1.0, "adversarial": {}}, "lambda1", "adversarial.lambda1"),
        ("adversarial", {"adversarial": {"lambda3": 1.0}}, "adversarial.lambda3", "lambda2"),
        ("consistency", {"ramp_up": 0.1, "consistency": {}}, "ramp_up", "consistency.ramp_up"),
        ("consistency", {"consistency": {"confidense": 0.9}}, "consistency.confidense", "confidence"),
    ],
)
def test_a_section_named_like_its_task_is_reported_by_its_path(
    task: str, keys: dict[str, Any], path: str, suggestion: str
) -> None:
    (line,) = _messages(base({"stages.segment": {"task": task, "data": "hospital", "steps": 4} | keys}))
    assert line.startswith(f"stages.segment.{path}: unknown key ")
    assert line.endswith(f"; did you mean {suggestion}?")


def test_two_errors_of_one_stage_are_reported_together() -> None:
    messages = _messages(base({"stages.segment.batch_size": 0, "stages.segment.steps": 4}))
    assert [line.partition(": ")[0] for line in messages] == ["stages.segment.batch_size", "stages.segment"]


def test_the_valid_part_of_a_faulty_study_is_still_checked() -> None:
    spec, problems = parse(base({"name": None, "compare.seeds": ["x"], "stages.classify.epochs": "many"}))
    assert len(problems) == 3
    assert spec is not None
    assert spec.compare.seeds == (0,)
    assert set(spec.stages) == {"boxes", "segment"}


def test_a_study_without_stages_gives_no_spec() -> None:
    assert parse(base({"stages": {}}))[0] is None


def test_members_of_a_union_are_described_by_their_required_keys() -> None:
    (line,) = _messages(base({"data.hospital.split": {"test": 10}}))
    assert line == (
        "data.hospital.split.test: is 10; allowed: 'folds' or 'official' or a mapping with images "
        "or a mapping with share or a mapping with list"
    )


def test_only_the_intended_member_is_reported() -> None:
    (line,) = _messages(base({"data.hospital.split": {"test": {"images": 0}}}))
    assert line == "data.hospital.split.test.images: is 0; allowed: greater than or equal to 1"


def test_a_refused_document_is_not_modified() -> None:
    document = base({"stages.segment.epochs": 0})
    parse(document)
    assert document == base({"stages.segment.epochs": 0})


def test_further_factors_are_keys_with_dots() -> None:
    spec, problems = parse(compare(**{"segment.optimizer.lr": [0.1, 0.01]}))
    assert problems == []
    assert spec is not None
    assert spec.compare.factors == {"segment.optimizer.lr": (0.1, 0.01)}
