"""The section of the report on data."""

from pathlib import Path

from study.report.data import _pseudo_labels, _weak_label_grid
from tests.support.tiny import planned, tiny


def test_the_report_states_which_weak_labels_are_derived_from_masks(tmp_path: Path) -> None:
    changes = {"pathways": {"none": ["segment"]}, "compare.labelled_fraction": [0.5], "stages.segment.rest": "class"}
    plan = planned(tiny(changes), tmp_path)
    hidden = sum(len(split.unlabelled) for split in plan.splits(0.5)) / 2
    (grid,) = _weak_label_grid(plan)
    assert [[cell.text for cell in row] for row in grid.rows] == [["segment", "class", "0.5", "0", f"{hidden:g}"]]
    assert [column.name for column in grid.columns] == [
        "stage",
        "rest",
        "labelled fraction",
        "of the data set",
        "derived",
    ]
    assert not list(_weak_label_grid(planned(tiny(), tmp_path)))


def test_the_report_states_how_many_images_have_pseudo_labels(tmp_path: Path) -> None:
    trains = {"data": "hospital", "steps": 2, "batch_size": 4}
    student = {"task": "pseudo_labels", **trains, "pseudo_labels": {"ensemble": 2}}
    changes = {"stages": {"segment": {"task": "segmentation", **trains}, "student": student},
               "pathways": {"none": ["segment", "student"]}, "compare.baseline": {},
               "compare.labelled_fraction": [0.5, 1.0]}  # fmt: skip
    plan = planned(tiny(changes), tmp_path)
    hidden = sum(len(split.unlabelled) for split in plan.splits(0.5)) / 2
    line = f"student: {hidden:g} images at 50 %, none at 100 %; by 2 networks"
    assert list(_pseudo_labels(plan)) == [
        f"Images with pseudo-labels, mean over folds and seeds: {line}.",
        "Stages that are trained to predict pseudo-labels alone: 2.",
    ]
