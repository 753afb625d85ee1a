"""What was measured is kept as it was."""

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


def test_every_number_comes_back_to_the_last_bit(file: Path) -> None:
    found = read_measured(file, MARKS)
    assert [*found] == STAGES
    for number, one in enumerate(found.values()):
        expected = measured(number)
        assert one.rows == expected.rows
        (images,), (wanted,) = one.images, expected.images
        assert images.values.tobytes() == wanted.values.tobytes()
        assert images.counts.tobytes() == wanted.counts.tobytes()
        arrays = {"values": None, "counts": None}
        assert {**vars(images), **arrays} == {**vars(wanted), **arrays}


def test_what_was_measured_from_something_else_is_left_out(file: Path) -> None:
    assert [*read_measured(file, MARKS | {STAGES[1]: "scored again"})] == [STAGES[0], STAGES[2]]
    assert [*read_measured(file, {STAGES[0]: MARKS[STAGES[0]]})] == [STAGES[0]]


def test_a_missing_or_broken_file_holds_nothing(file: Path) -> None:
    assert read_measured(file.with_name("none"), MARKS) == {}
    file.write_bytes(file.read_bytes()[:-5])
    assert read_measured(file, MARKS) == {}
