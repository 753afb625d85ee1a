"""Weak labels and pseudo-labels in study files: the factor, and what is refused in one line."""

from pathlib import Path

import pytest

from study.errors import ConfigError
from tests.support.documents import Document, base, planned
from tests.support.finished import CLASSES, write_pictures
from tests.support.tiny import tiny

SEGMENT = {"pathways": {"none": ["segment"]}, "compare.baseline": {}}


def rests(document: Document, cache: Path) -> list[list[str]]:
    """Return `rest` of the stages of each arm, - for stages without it."""
    return [[getattr(step.settings, "rest", "-") for step in arm.chain] for arm in planned(document, cache).arms]


def test_the_factor_sets_the_stages_that_learn_the_masks_of_the_target(tmp_path: Path) -> None:
    stages = {"stages.early": {"task": "segmentation", "data": "hospital", "epochs": 1},
              "pathways": {"none": ["classify", "boxes", "early", "segment"]}}  # fmt: skip
    document = base({**stages, "compare.baseline": {"rest": "none"}, "compare.rest": ["none", "class"]})
    assert rests(document, tmp_path) == [["-", "none", "none", "none"], ["-", "none", "class", "class"]]


def test_a_dotted_factor_sets_one_stage(tmp_path: Path) -> None:
    document = base({**SEGMENT, "compare.segment.rest": ["scribble", "none"]})
    assert rests(document, tmp_path) == [["scribble"], ["none"]]


REFUSED: dict[str, tuple[Document, str]] = {
    "unknown": ({"stages.segment.rest": "polygon"}, "allowed: "),
    "patches": ({"stages.segment.rest": "class", "image.fit": "patch"}, "rest: is class with fit: patch"),
    "parts": ({"stages.segment.rest": "class", "stages.segment.accumulate": 2}, "accumulate is 2 with rest: class"),
    "deep": ({"stages.segment.rest": "class", "stages.segment.deep_supervision": True}, "deep_supervision is true"),
    "losses": (
        {"stages.segment.rest": "points", "stages.segment.loss": {"cldice": 1.0, "dice": 0.0}},
        "loss is cldice with rest: points, which needs complete masks",
    ),
    "patches of some arms": (
        {"stages.segment.rest": "class", "compare.image.fit": ["patch", "letterbox"]}, "rest: is class with fit: patch"
    ),
    "patches of a stage": (
        {"stages.segment.rest": "class", "compare.segment.image.fit": ["patch", "stretch"]},
        "rest: is class with fit: patch",
    ),
    "patches in a search": (
        {"stages.segment.rest": "class",
         "search": {"trials": 2, "space": {"image.fit": {"choices": ["patch", "letterbox"]}}}},
        "rest is class with fit: patch",
    ),
    "elastic": (
        {"stages.segment.rest": "box", "stages.segment.augment": {"elastic": 0.03}}, "elastic: is 0.03 with rest: box"
    ),
    "elastic of a preset": (
        {"compare.segment.rest": ["none", "box"], "stages.segment.augment": {"preset": "strong"}}, "with rest: box"
    ),
    "elastic of a preset with its name": (
        {"stages.segment.rest": "box", "stages.segment.augment": {"preset": "strong"}},
        "elastic: is 0.03, of preset strong, with rest: box",
    ),
    "reflections": (
        {"stages.segment.rest": "box", "stages.segment.augment": {"border": "reflect", "shear": 5}},
        "augment.border: is reflect with shear 5 and rest: box; allowed: constant",
    ),
    "reflections of some arms": (
        {"compare.rest": ["none", "box"], "stages.segment.augment": {"preset": "light", "border": "reflect"}},
        "augment.border: is reflect with rotate 10 and rest: box",
    ),
    "pathways with an unknown stage": (
        {"compare.rest": ["none", "box"], "pathways.more": ["segment", "lost"]}, "unknown stage 'lost'"
    ),
    "boxes": ({"stages.boxes.rest": "class"}, "with the target box_mask"),
    "consistency": ({"stages.segment.task": "consistency", "compare.rest": ["none", "class"]}, "compare.segment.rest"),
    "search": ({"search": {"trials": 2, "space": {"target.rest": {"choices": ["none", "class"]}}}}, "is compared"),
    "twice": (
        {"stages.segment.rest": "box", "compare.rest": ["none", "class"]},
        "stages.segment.rest: is box, and compare.rest sets it too; allowed: one of them",
    ),
    "unused without weak labels": (
        {"stages.segment.weak": {"ramp_up": 0.5}},
        "segment.weak.ramp_up: has no effect with rest: none; allowed: with box",
    ),
    "unused by the kind": (
        {"stages.segment.rest": "box", "stages.segment.weak": {"radius": 5}},
        "segment.weak.radius: has no effect with rest: box; allowed: with points",
    ),
    "unused factor": (
        {"compare.rest": ["none", "scribble"], "compare.segment.weak.size_prior": [True, False]},
        "compare.segment.weak.size_prior: has no effect with rest: scribble; allowed: with points, class",
    ),
    "unused factor of a block": (
        {"compare.segment.weak": [{"radius": 3}, {"radius": 5}], "compare.segment.rest": ["none", "box"]},
        "compare.segment.weak: radius has no effect with rest: box; allowed: with points",
    ),
    "unused factor of targets": (
        {"compare.target.weak.radius": [3, 5], "compare.segment.rest": ["none", "box"]},
        "compare.target.weak.radius: has no effect with rest: box; allowed: with points",
    ),
    "unused by a stage that no factor sets": (
        {"stages.other": {"task": "segmentation", "data": "hospital", "epochs": 1, "weak": {"radius": 5}},
         "pathways": {"none": ["other", "segment"]}, "compare.baseline": {}, "compare.segment.weak.radius": [2, 3],
         "compare.segment.rest": ["points", "box"]},
        "stages.other.weak.radius: has no effect with rest: none",
    ),
    "unused block in a search": (
        {"stages.segment.rest": "box",
         "search": {"trials": 2, "nested": True, "scope": "arm",
                    "space": {"target.weak": {"choices": [{"radius": 2}, {"radius": 3}]}}}},
        "search.space.target.weak: radius has no effect with rest: box",
    ),
    "unused in a search": (
        {"stages.segment.rest": "box",
         "search": {"trials": 2, "nested": True, "scope": "arm",
                    "space": {"target.weak.radius": {"uniform": [1, 5]}}}},
        "search.space.target.weak.radius: has no effect with rest: box",
    ),
    "weight in a search on the reserve": (
        {"stages.segment.rest": "box", "validation.min_cases": 1,
         "search": {"trials": 2, "reserve": 0.6, "space": {"target.weak.weight": {"uniform": [0.1, 5]}}}},
        "decides how images with weak labels are used, but trials on the reserve have no images with weak labels",
    ),
    "minutes": ({"stages.segment.rest": "class", "data.hospital.annotation_minutes": {"mask": 5}}, "add class"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(changes: Document, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(base(changes), tmp_path)
    lines = str(refused.value).splitlines()
    assert len([line for line in lines if message in line]) == 1
    assert all("; " in line and "allowed" in line for line in lines)


def message_of(changes: Document, cache: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        planned(base(changes), cache)
    return str(refused.value)


def test_a_combination_that_does_not_fit_is_named_with_a_remedy(tmp_path: Path) -> None:
    factor = {"compare.rest": ["none", "box"]}
    consistency = message_of({**SEGMENT, "stages.segment.task": "consistency", **factor}, tmp_path)
    assert consistency.count("value box does not fit: rest is box; allowed: none, as ") == 1
    assert "or exclude the combination" in consistency
    deep = message_of({**SEGMENT, "stages.segment.deep_supervision": True, **factor}, tmp_path)
    assert "value box does not fit: deep_supervision is true with rest: box; allowed: false; " in deep
    assert "or exclude the combination" in deep
    excluded = {"compare.exclude": [{"rest": "box", "segment.deep_supervision": True}],
                "compare.segment.deep_supervision": [True, False]}  # fmt: skip
    assert len(planned(base({**SEGMENT, **factor, **excluded}), tmp_path).arms) == 3


def test_searched_values_are_not_to_be_excluded(tmp_path: Path) -> None:
    space = {"target.augment.elastic": {"uniform": [0.0, 0.05]}}
    message = message_of({"stages.segment.rest": "box", "search": {"trials": 2, "space": space}}, tmp_path)
    assert "value 0.05 does not fit" in message
    assert "set it to 0, or choose another rest" in message
    assert "exclude" not in message


@pytest.mark.parametrize("changes", [
    {"compare.rest": ["none", "points"], "stages.segment.weak": {"radius": 5}},
    {"compare.rest": ["none", "points", "box"], "compare.segment.weak.size_prior": [True, False]},
    {"stages.segment.rest": "scribble", "stages.segment.weak": {"weight": 0.5}},
])  # fmt: skip
def test_settings_that_some_arm_uses_are_allowed(changes: Document, tmp_path: Path) -> None:
    assert planned(base({**SEGMENT, **changes}), tmp_path).arms


@pytest.mark.parametrize("other", [
    {"stages.segment.deep_supervision": True, "compare.rest": ["none", "box"]},
    {"stages.classify.epochs": -1, "compare.rest": ["none", "box"], "pathways": {"none": ["classify", "segment"]}},
])  # fmt: skip
def test_settings_are_not_called_unused_if_other_faults_hide_arms(other: Document, tmp_path: Path) -> None:
    message = message_of({**SEGMENT, "stages.segment.weak": {"weight": 0.5}, **other}, tmp_path)
    assert "has no effect" not in message


@pytest.mark.parametrize("augment", [{"border": "reflect", "flip": 0.5}, {"rotate": 10, "crop": 0.2}])
def test_boxes_may_be_flipped_and_turned(augment: Document, tmp_path: Path) -> None:
    document = {**SEGMENT, "compare.rest": ["none", "box"], "stages.segment.augment": augment}
    assert planned(base(document), tmp_path).arms


def test_a_factor_of_one_stage_comes_before_that_of_all(tmp_path: Path) -> None:
    document = base({**SEGMENT, "compare.rest": ["class"], "compare.segment.rest": ["scribble", "none"]})
    assert rests(document, tmp_path) == [["scribble"], ["none"]]


def test_tasks_without_weak_labels_are_compared_without_them(tmp_path: Path) -> None:
    document = base({**SEGMENT, "stages.segment.task": "adversarial", "compare.rest": ["none"]})
    assert rests(document, tmp_path) == [["none"]]


@pytest.mark.parametrize("rest", ["none", "points"])
def test_faults_of_annotation_that_is_read_as_weak_labels_are_refused(rest: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    (tmp_path / "data" / "points.csv").write_text(f"image,x,y,class\np0.png,500,5,{CLASSES[0]}\n", encoding="utf-8")
    data = {"hospital": {"source": "folder", "root": str(tmp_path / "data"), "classes": CLASSES}}
    document = tiny({"data": data, "validation": {"min_cases": 1}, "pathways": {"none": ["segment"]},
                     "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 2, "rest": rest}},
                     "compare.labelled_fraction": [0.5]})  # fmt: skip
    if rest == "none":
        assert planned(document, tmp_path / "cache").arms
        return
    with pytest.raises(ConfigError, match="500"):
        planned(document, tmp_path / "cache")


STUDENT = {"task": "pseudo_labels", "data": "hospital", "epochs": 1}
SELF_TRAINING: Document = {"stages.student": STUDENT, "pathways": {"none": ["segment", "student"]}}
UNFIT: dict[str, tuple[Document, str]] = {
    "first": ({"pathways": {"none": ["student"]}}, "pathways.none[0]: is student, whose images no stage before"),
    "labels": ({"pathways": {"none": ["classify", "student"]}}, "after classify, a classification stage, which"),
    "boxes": ({"pathways": {"none": ["boxes", "student"]}}, "after boxes, a segmentation stage with target box_mask"),
    "other data": ({"stages.segment.data": "clinic"}, "is student on hospital after segment on clinic"),
    "size": ({"stages.student.image": {"size": 96}}, "other image settings (size) than segment"),
    "prepare": ({"stages.student.prepare": {"gamma": 2}}, "other image settings (prepare) than segment"),
    "patches": ({"image.fit": "patch"}, "is student with fit: patch"),
    "backbone": ({"stages.student.backbone": "resnet34"}, "student has backbone resnet34 and segment before it"),
    "fresh backbone": (
        {"stages.student.backbone": "resnet34",
         "pathways": {"none": ["segment", {"stage": "student", "carry": "none"}]}},
        "allowed: the same, as both start from the initial weights of the arm; change one of them",
    ),
    "carry": (
        {"pathways": {"none": ["classify", {"stage": "segment", "carry": "none"}, "student"]}},
        "pathways.none[1].carry: is none to segment, which then has nothing of classify",
    ),
    "accumulate": ({"stages.student.accumulate": 2}, "stages.student.accumulate"),
    "rest": ({"stages.student.rest": "class"}, "stages.student.rest"),
    "confidence": ({"stages.student.pseudo_labels": {"confidence": 1}}, "pseudo_labels.confidence"),
    "ensemble": ({"stages.student.pseudo_labels": {"ensemble": 0}}, "pseudo_labels.ensemble"),
    "loss": ({"stages.student.pseudo_labels": {"labels": "soft"}, "stages.student.loss": {"focal": 1}}, "is focal"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), UNFIT.values(), ids=UNFIT)
def test_a_stage_with_pseudo_labels_that_does_not_fit_is_refused(
    changes: Document, message: str, tmp_path: Path
) -> None:
    document = base({"stages.boxes": {"task": "segmentation", "data": "hospital", "target": "box_mask", "epochs": 1},
                     "compare.baseline": {}, **SELF_TRAINING, **changes})  # fmt: skip
    with pytest.raises(ConfigError) as refused:
        planned(document, tmp_path)
    lines = str(refused.value).splitlines()
    assert len([line for line in lines if message in line]) == 1, lines
    assert all("; " in line and "allowed" in line for line in lines), lines


@pytest.mark.parametrize(
    ("overlapping", "confidence", "is_useless"),
    [(False, 0.0, False), (False, 0.3, True), (False, 0.34, False), (True, 0.5, True), (True, 0.51, False)],
)
def test_a_confidence_that_every_pixel_has_causes_a_warning(
    overlapping: bool, confidence: float, is_useless: bool, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "data", overlapping=overlapping)
    trains = {"data": "hospital", "steps": 2, "batch_size": 4}
    student = {"task": "pseudo_labels", **trains, "pseudo_labels": {"confidence": confidence}}
    plan = planned(tiny({
        "data": {"hospital": {"source": "folder", "root": str(tmp_path / "data"), "classes": CLASSES}},
        "stages": {"segment": {"task": "segmentation", **trains}, "student": student},
        "pathways": {"none": ["segment", "student"]}, "compare.baseline": {}, "compare.labelled_fraction": [0.5],
    }), tmp_path / "cache")  # fmt: skip
    warnings = [warning for warning in plan.warnings if "confidence" in warning]
    least = "0.5" if overlapping else "0.33"
    text = (
        f"stages.student: pseudo_labels.confidence {confidence:g} ignores no pixel, as the most likely class has a "
        f"probability of at least {least}; allowed: larger values, or 0; raise it"
    )
    assert warnings == ([text] if is_useless else [])
