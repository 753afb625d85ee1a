"""A volume is one case: its slices are summed before any metric is computed."""

import math

import numpy as np
import pyarrow as pa
import pytest

from results import schema
from results.metrics.cases import Cases
from results.metrics.compute import MetricRow, MetricSettings, StageMetrics, measure
from results.metrics.formulas import Counts
from tests.support.replicates import NAMES, Stored, stage, truth_and_scores

IMAGES = 6
VOLUMES = ["a", "a", "a", "b", "b", None]


def sliced() -> Stored:
    """Six images, of which the first five are the slices of two volumes."""
    scores, images = stage(*truth_and_scores(IMAGES))
    return scores, images.set_column(images.schema.get_field_index("volume"), "volume", pa.array(VOLUMES))


def joined() -> Stored:
    """The same pixels with each volume as one large image."""
    truth, scores = truth_and_scores(IMAGES)
    parts = [slice(0, 3), slice(3, 5), slice(5, 6)]
    tables = [stage(*(np.concatenate(list(array[part]), axis=-1)[None] for array in (truth, scores))) for part in parts]
    names = ["a", "b", "5"]
    return tuple(  # type: ignore[return-value]
        pa.concat_tables([
            table[kind].set_column(0, "image", pa.array([name] * table[kind].num_rows))
            for table, name in zip(tables, names, strict=True)
        ])
        for kind in range(2)
    )  # fmt: skip


def by_series(measured: StageMetrics) -> dict[tuple[str, str, str], MetricRow]:
    return {(row.aggregation, row.class_, row.metric): row for row in measured.rows}


def test_metrics_of_a_volume_are_those_of_its_slices_as_one_image() -> None:
    actual, expected = (by_series(measure(*tables, MetricSettings())) for tables in (sliced(), joined()))
    assert actual.keys() == expected.keys()
    for series, row in actual.items():
        assert row.images == expected[series].images, series
        if row.value is None:
            assert expected[series].value is None
        else:
            assert row.value == pytest.approx(expected[series].value, abs=1e-9), series


def test_pooled_metrics_do_not_depend_on_volumes_and_count_cases() -> None:
    single, volumes = stage(*truth_and_scores(IMAGES)), sliced()
    actual, expected = (by_series(measure(*tables, MetricSettings())) for tables in (volumes, single))
    for series, row in expected.items():
        if series[0] == "dataset":
            assert actual[series].value == pytest.approx(row.value)
            assert (actual[series].images, row.images) == (3, IMAGES)


def test_a_slice_without_the_class_has_no_separate_metric() -> None:
    (images,) = measure(*sliced(), MetricSettings()).images
    assert images.images == ("5", "a", "b")
    assert images.patients == ("p/5", "p/0", "p/3")
    dice = images.values[:, images.series.index(("effusion", "dice"))]
    assert np.isnan(dice).tolist() == [True, False, True]  # of the slices of a, only the first contains the class
    tp, fp, fn, _ = images.counts[1, NAMES.index("effusion")]
    assert dice[1] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_the_number_of_images_with_a_class_counts_volumes() -> None:
    averaged = [measure(*sliced(), MetricSettings(min_images=number)).images[0].averaged for number in (2, 3, 4)]
    assert averaged == [("left", "right"), ("left", "right"), ()]


def test_shapes_of_a_volume_are_those_of_its_first_slice() -> None:
    scores, images = sliced()
    rows = scores.to_pylist()
    for row in rows:
        if row["image"] in ("0", "3", "5") and row["class"] == "left":
            row |= {"hd95": float(row["image"]), "assd": 1.0, "nsd": 0.5, "cl_dice": 0.5}
            row |= {"lesion_tp": 1, "lesion_fp": 1, "lesion_fn": 0}
    actual = by_series(measure(pa.Table.from_pylist(rows, scores.schema), images, MetricSettings()))
    assert actual["case", "left", "hd95"][-2:] == (pytest.approx(8 / 3), 3)
    assert actual["case", "left", "lesion_precision"][-2:] == (0.5, 3)


def test_tables_without_the_column_are_single_images() -> None:
    scores, images = stage(*truth_and_scores(IMAGES))
    older = images.drop_columns(["volume"])
    assert Cases.of(older.sort_by("image")).names == tuple(map(str, range(IMAGES)))
    actual, expected = (measure(scores, table, MetricSettings()) for table in (older, images))
    assert str(actual.rows) == str(expected.rows)
    assert "volume" in schema.images().names
    assert not math.isnan(actual.rows[0].value or 0)


def test_counts_of_cases_do_not_depend_on_the_order_of_volumes() -> None:
    ids, volumes = ["scan-2/000", "scan/000"], ["scan-2", "scan"]
    images = pa.table({"image": ids, "patient": ["b", "a"], "volume": volumes})
    cases = Cases.of(images)
    assert (cases.names, cases.patients) == (("scan", "scan-2"), ("a", "b"))
    tp = np.array([[1.0], [2.0]])
    bins = np.zeros((2, 1, 3))
    counts = cases.counts(Counts(tp=tp, fp=tp, fn=tp, tn=tp, positives=bins, negatives=bins))
    assert counts.tp.tolist() == [[2.0], [1.0]]
