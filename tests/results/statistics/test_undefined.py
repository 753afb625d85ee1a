"""Notes of means over fewer replicates or images than there are results for, with the reason."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from results.metrics.compute import MetricSettings, collect
from results.report.grids import class_grid
from results.schema import ReplicateRecord
from results.statistics.compare import compare
from results.statistics.design import Design
from results.tables.layout import table
from results.tables.render import render
from results.tables.side_by_side import side_by_side
from tests.support.replicates import NAMES, Stored, replicate, stage, truth_and_scores

REPLICATES = 4
NEVER = "mean over 3 of 4 replicates: precision undefined where left is never predicted"


def stored(record: ReplicateRecord) -> Stored:
    """In the first replicate `left` is never predicted."""
    truth, scores = truth_and_scores()
    if record.digest == "d0":
        scores[:, 0] = 0.3
    return stage(truth, scores)


def comparisons(load: Any = stored, settings: MetricSettings | None = None) -> pa.Table:  # noqa: ANN401
    results = collect("s", map(replicate, range(REPLICATES)), load, settings or MetricSettings())
    return compare(results, Design(folds=REPLICATES, seeds=1)).comparisons


def undefined(rows: pa.Table) -> dict[tuple[str, str, str], str]:
    return {(row["aggregation"], row["class"], row["metric"]): row["undefined"] for row in rows.to_pylist()}


def test_a_class_never_predicted_is_named_with_the_number_of_replicates() -> None:
    notes = undefined(comparisons())
    for class_ in ("left", "macro", "weighted"):
        assert notes["dataset", class_, "precision"] == NEVER
        assert notes["dataset", class_, "recall"] == ""
    assert notes["dataset", "right", "precision"] == ""


def test_the_mean_is_over_the_replicates_counted_in_the_note() -> None:
    rows = comparisons()
    (row,) = [
        row
        for row in rows.to_pylist()
        if (row["aggregation"], row["class"], row["metric"]) == ("dataset", "left", "precision")
    ]
    truth, scores = truth_and_scores()
    predicted = scores[:, 0] >= 0.5
    assert row["n"] == 3
    np.testing.assert_allclose(row["mean"], (truth[:, 0] & predicted).sum() / predicted.sum())


def test_a_class_absent_from_all_images_is_named() -> None:
    notes = undefined(comparisons())
    expected = "no mean in 4 replicates: dice undefined where no image contains absent"
    assert notes["dataset", "absent", "dice"] == expected
    assert notes["dataset", "macro", "dice"] == ""  # the mean is over the classes in the truth


def test_images_in_which_a_class_is_never_predicted_are_counted() -> None:
    def in_one_image(_: ReplicateRecord) -> Stored:
        truth, scores = truth_and_scores()
        scores[0, 1] = 0.3
        return stage(truth, scores)

    notes = undefined(comparisons(in_one_image))
    assert notes["case", "right", "precision"] == (
        "mean over 16 of 20 images: precision undefined where right is never predicted"
    )
    assert notes["case", "macro", "precision"] == (
        "mean over 16 of 20 images: precision undefined where a class is never predicted"
    )
    assert notes["case", "right", "dice"] == ""


def test_images_in_which_shapes_cannot_be_measured_are_counted() -> None:
    def partly_annotated(_: ReplicateRecord) -> Stored:
        scores, images = stage(*truth_and_scores())
        rows = scores.to_pylist()
        for row in rows:
            if (row["image"], row["class"]) != ("1", "right"):
                row |= {"hd95": 1.0, "assd": 1.0, "nsd": 0.5, "cl_dice": 0.5}
                row |= {"lesion_tp": 1, "lesion_fp": 0, "lesion_fn": 0}
        return pa.Table.from_pylist(rows, schema=scores.schema), images

    rows = comparisons(partly_annotated)
    notes = undefined(rows)
    assert notes["case", "right", "hd95"] == (
        "mean over 16 of 20 images: hd95 undefined where right is not annotated in all pixels"
    )
    assert notes["case", "left", "hd95"] == notes["case", "macro", "hd95"] == ""
    means = {(row["class"], row["metric"]): row["mean"] for row in rows.to_pylist() if row["aggregation"] == "case"}
    assert means["macro", "hd95"] == 1.0


SHAPES = {"hd95": 1.0, "assd": 1.0, "nsd": 0.5, "cl_dice": 0.5, "lesion_tp": 1, "lesion_fp": 0, "lesion_fn": 0}


def edited(stored: Stored, edit: Any) -> Stored:  # noqa: ANN401
    """Change each row of the scores."""
    scores, images = stored
    return pa.Table.from_pylist([row | edit(row) for row in scores.to_pylist()], schema=scores.schema), images


def without_annotation(row: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of `right` in an image without annotation of it."""
    if row["class"] != "right":
        return {}
    empty = {name: [0] * len(row[name]) for name in ("positives", "negatives", "score_sums")}
    return dict.fromkeys(("tp", "fp", "fn", "tn"), 0) | empty


@pytest.mark.parametrize(
    ("digests", "note"), [(("d0", "d1", "d2", "d3"), "no mean in 4"), (("d1",), "mean over 3 of 4")]
)
def test_a_class_annotated_in_no_image_is_named(digests: tuple[str, ...], note: str) -> None:
    def load(record: ReplicateRecord) -> Stored:
        stored_tables = stage(*truth_and_scores())
        return edited(stored_tables, without_annotation) if record.digest in digests else stored_tables

    notes = undefined(comparisons(load))
    for aggregation, metric in (("dataset", "dice"), ("case", "dice"), ("case", "dice_empty_is_one")):
        assert notes[aggregation, "right", metric] == (
            f"{note} replicates: {metric} undefined where right is annotated in no image"
        )
    reason = "right is annotated in no image" + " or an image contains right" * (len(digests) == 1)
    assert notes["dataset", "right", "false_positive_pixels"] == (
        f"no mean in 4 replicates: false_positive_pixels undefined where {reason}"
    )
    assert notes["dataset", "macro", "dice"] == ""
    assert notes["dataset", "absent", "false_positive_pixels"] == ""


@pytest.mark.parametrize(
    ("digests", "note"), [(("d0", "d1", "d2", "d3"), "no mean in 4"), (("d1",), "mean over 3 of 4")]
)
def test_a_class_annotated_in_part_of_all_images_has_no_shapes(digests: tuple[str, ...], note: str) -> None:
    def load(record: ReplicateRecord) -> Stored:
        is_partly = record.digest in digests
        return edited(stage(*truth_and_scores()), lambda row: {} if row["class"] == "right" and is_partly else SHAPES)

    notes = undefined(comparisons(load))
    for metric in ("hd95", "nsd", "lesion_precision"):
        assert notes["case", "right", metric] == (
            f"{note} replicates: {metric} undefined where right is not annotated in all pixels"
        )
        assert notes["case", "left", metric] == ""


def test_both_reasons_for_an_undefined_precision_of_lesions_are_named() -> None:
    def edit(row: dict[str, Any]) -> dict[str, Any]:
        if row["class"] != "right" or row["image"] == "2":
            return SHAPES
        return {} if row["image"] == "1" else SHAPES | {"lesion_tp": 0, "lesion_fn": 1}

    notes = undefined(comparisons(lambda record: edited(stage(*truth_and_scores()), edit)))
    assert notes["case", "right", "lesion_precision"] == (
        "mean over 4 of 20 images: lesion_precision undefined where right is not annotated in all pixels or right is "
        "never predicted"
    )
    assert notes["case", "right", "hd95"] == (
        "mean over 16 of 20 images: hd95 undefined where right is not annotated in all pixels"
    )


def test_the_background_of_earlier_scores_is_named() -> None:
    def earlier(_: ReplicateRecord) -> Stored:
        truth, scores = truth_and_scores()
        scores_table, images = stage(truth[:, :2], scores[:, :2], names=("background", "bone"))
        empty = [0] * len(scores_table["positives"][0])
        is_background = pc.equal(scores_table["class"], "background").to_pylist()
        for name in ("positives", "negatives"):
            place = scores_table.schema.get_field_index(name)
            values = [empty if lost else kept for lost, kept in zip(is_background, scores_table[name].to_pylist())]  # noqa: B905
            field = scores_table.schema.field(place)
            scores_table = scores_table.set_column(place, field, pa.array(values, field.type))
        return scores_table, images

    notes = undefined(comparisons(earlier, MetricSettings(background=True)))
    expected = (
        "no mean in 4 replicates: auc undefined where the score histogram of background is not stored "
        "(scored by an earlier version)"
    )
    assert notes["dataset", "background", "auc"] == expected
    assert notes["dataset", "weighted", "auc"] == expected


def test_table_comparison_of_studies_and_report_show_the_reason() -> None:
    rows = comparisons()
    grid = table(rows, metric="precision")
    assert f"; {NEVER} (1)." in render(grid, "md")
    assert NEVER in render(grid, "json")
    other = rows.set_column(0, "study", pa.array(["other"] * rows.num_rows))
    selection = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "precision"}
    assert NEVER in render(side_by_side(rows, other, selection, comparable=True), "md")
    by_class = class_grid(rows, "precision")
    assert by_class is not None
    assert f"M{NEVER[1:]} (1 cell)." in by_class.caption
    assert NAMES[0] in {column.name for column in by_class.columns}
