"""Measured values are stored exactly."""

from pathlib import Path

import numpy as np
import pytest

from results.metrics.compute import ImageValues, MetricRow, ScoringKey, StageMetrics
from results.metrics.measured import read_measured, write_measured

STAGES: list[ScoringKey] = [("one", "a"), ("one", "b"), ("other", "a")]
MARKS = {stage: "-".join(stage) for stage in STAGES}


def measured(number: int) -> StageMetrics:
    rows = [
        MetricRow("test", "case", "macro", "dice", None, 0),
        MetricRow("validation", "dataset", "lung", "auc", number / 3, 2),
    ]
    values = np.array([[number / 7, np.nan], [-0.0, 1e-300]])
    series = (("macro", "dice"), ("lung", "auc"))
    images = ImageValues(
        split="test", images=("x", "y"), patients=("p", "p"), series=series, values=values, classes=("lung",),
        averaged=("lung",), counts=np.arange(8).reshape(2, 1, 4) + number,
    )  # fmt: skip
    return StageMetrics(rows, [images])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_measured(tmp_path / "measured.parquet", {stage: measured(n) for n, stage in enumerate(STAGES)}, MARKS)
    return tmp_path / "measured.parquet"


def test_every_number_is_restored_bitwise(file: Path) -> None:
    stored = read_measured(file, MARKS)
    assert [*stored] == STAGES
    for number, values in enumerate(stored.values()):
        expected = measured(number)
        assert values.rows == expected.rows
        (images,), (expected_image,) = values.images, expected.images
        assert images.values.tobytes() == expected_image.values.tobytes()
        assert images.counts.tobytes() == expected_image.counts.tobytes()
        arrays = {"values": None, "counts": None}
        assert {**vars(images), **arrays} == {**vars(expected_image), **arrays}


def test_values_measured_from_other_masks_are_ignored(file: Path) -> None:
    assert [*read_measured(file, MARKS | {STAGES[1]: "scored again"})] == [STAGES[0], STAGES[2]]
    assert [*read_measured(file, {STAGES[0]: MARKS[STAGES[0]]})] == [STAGES[0]]


def test_a_missing_or_malformed_file_has_no_values(file: Path) -> None:
    assert read_measured(file.with_name("none"), MARKS) == {}
    file.write_bytes(file.read_bytes()[:-5])
    assert read_measured(file, MARKS) == {}
