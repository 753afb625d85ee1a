"""Numbers of images with weak labels in the plan, and their cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from study.analysis.annotation_cost import annotation_hours
from study.analysis.weak_images import (
    pseudo_label_lines,
    pseudo_labelled_images,
    teacher_runs,
    weak_image_lines,
    weak_images,
)
from tests.study.planning.test_teacher_runs import document
from tests.support.finished import CLASSES, write_pictures
from tests.support.tiny import planned, tiny

STUDY: dict[str, Any] = {
    "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 6, "batch_size": 4}},
    "pathways": {"none": ["segment"]}, "validation": {"min_cases": 1}, "compare.labelled_fraction": [0.5, 1.0],
    "compare.baseline": {"rest": "none"}, "compare.rest": ["none", "scribble", "class"], "compare.folds": 2,
}  # fmt: skip


def test_images_of_the_data_set_and_derived_ones_are_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    (tmp_path / "data" / "scribbles").mkdir()
    for name in ("p0.png", "p1.png"):
        mask = tmp_path / "data" / "masks" / name
        with Image.open(mask) as ids:
            scribbles = np.where(np.arange(ids.width) % 9 == 0, ids, 255).astype(np.uint8)
        Image.fromarray(scribbles).save(tmp_path / "data" / "scribbles" / name)
        mask.unlink()
    data = {"hospital": {"source": "folder", "root": str(tmp_path / "data"), "classes": CLASSES}}
    plan = planned(tiny({**STUDY, "data": data}), tmp_path)
    entries = weak_images(plan)
    assert [(entry["rest"], entry["labelled_fraction"]) for entry in entries] == [
        ("scribble", 0.5), ("scribble", 1.0), ("class", 0.5), ("class", 1.0),
    ]  # fmt: skip
    half, whole, by_class, _ = entries
    assert (half["own"], whole["own"], whole["derived"], by_class["own"]) == (2, 2, 0, 0)
    hidden = sum(len(split.unlabelled) for split in plan.splits(0.5)) / 2 - 2
    assert half["derived"] == by_class["derived"] == hidden
    assert weak_image_lines(entries) == [
        f"segment, scribble: 2 of the data set and {hidden:g} derived from masks at 50 %, 2 of the data set at 100 %",
        f"segment, class: {hidden:g} derived from masks at 50 %, none at 100 %",
    ]


@pytest.mark.parametrize("rest", ["box", "points", "scribble", "class"])
def test_hours_include_images_with_weak_labels(rest: str, tmp_path: Path) -> None:
    minutes = {"mask": 60, "box": 12, "points": 9, "scribble": 6, "class": 3}
    changes = {"compare.rest": ["none", rest], "data.hospital.annotation_minutes": minutes}
    plan = planned(tiny({**STUDY, **changes}), tmp_path)
    hours = annotation_hours(plan)
    hidden = sum(len(split.unlabelled) for split in plan.splits(0.5)) / 2
    assert hidden > 0
    assert hours[1, 0.5] - hours[0, 0.5] == pytest.approx(hidden * minutes[rest] / 60)
    assert hours[1, 1.0] == hours[0, 1.0]


@pytest.mark.parametrize("images", [1, 2])
def test_a_single_image_with_weak_labels_counts_and_costs_nothing(images: int, tmp_path: Path) -> None:
    """A stage does not use it; with a second one both count."""
    write_pictures(tmp_path / "data", overlapping=False)
    for number in range(images):
        (tmp_path / "data" / "masks" / f"p{number}.png").unlink()
    rows = [f"p{number},5,5,{CLASSES[0]}" for number in range(images)]
    (tmp_path / "data" / "points.csv").write_text("\n".join(["image,x,y,class", *rows]) + "\n", encoding="utf-8")
    data = {"hospital": {"source": "folder", "root": str(tmp_path / "data"), "classes": CLASSES,
                         "annotation_minutes": {"mask": 60, "points": 6}}}  # fmt: skip
    changes = {"data": data, "compare.rest": ["none", "points"], "compare.labelled_fraction": [1.0]}
    plan = planned(tiny({**STUDY, **changes}), tmp_path)
    used = images if images > 1 else 0
    assert [entry["own"] for entry in weak_images(plan)] == [used]
    hours = annotation_hours(plan)
    assert hours[1, 1.0] - hours[0, 1.0] == pytest.approx(used * 6 / 60)


def test_runs_of_teachers_that_students_share_are_counted_once(tmp_path: Path) -> None:
    trains = {"data": "hospital", "steps": 2, "batch_size": 4}
    changes = {
        "stages.other": {"task": "pseudo_labels", **trains, "pseudo_labels": {"labels": "soft", "ensemble": 2}},
        "pathways": {"none": ["segment", "student"], "other": ["segment", "other"]}, "compare.baseline": {},
        "compare.labelled_fraction": [0.5, 1.0],
    }  # fmt: skip
    plan = planned(document(changes), tmp_path)
    hidden = sum(len(split.unlabelled) for split in plan.splits(0.5)) / 2
    assert teacher_runs(plan) == 2 * 2
    assert pseudo_label_lines(pseudo_labelled_images(plan), teacher_runs(plan)) == [
        f"student: {hidden:g} images at 50 %, none at 100 %; by 3 networks",
        f"other: {hidden:g} images at 50 %, none at 100 %; by 2 networks",
        "4 further runs as teachers",
    ]
