import numpy as np
import pyarrow as pa
import pytest

from models.score_bins import SCORE_BINS, THRESHOLD_STEPS
from results import schema
from results.metrics.background import with_background
from results.metrics.compute import MetricSettings, replicate_rows
from results.metrics.thresholds import at_threshold


def tables(truth: np.ndarray, predicted: np.ndarray, *, bins: int = SCORE_BINS) -> tuple[pa.Table, pa.Table]:
    """One image of exclusive classes 0 (background), 1 and 2."""
    confusion = np.zeros((3, 3), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    rows = []
    for number in (1, 2):
        is_true, is_predicted = truth == number, predicted == number
        counts = {
            "tp": (is_true & is_predicted).sum(),
            "fp": (~is_true & is_predicted).sum(),
            "fn": (is_true & ~is_predicted).sum(),
        }
        rows.append(
            {"image": "a", "class": f"c{number}", "split": "test", "tn": (~is_true & ~is_predicted).sum(), **counts}
            | dict.fromkeys(("positives", "negatives"), [0] * bins)
        )
    image = {"image": "a", "patient": "p", "split": "test", "confusion": confusion.ravel().tolist()}
    empty: dict[str, object] = dict.fromkeys(("confidence_count", "confidence_sum", "confidence_correct"), [0] * 20)
    return (
        pa.Table.from_pylist(rows, schema=schema.scores()),
        pa.Table.from_pylist([image | empty], schema=schema.images()),
    )


def test_background_counts_are_those_of_its_pixels() -> None:
    draw = np.random.default_rng(0)
    truth, predicted = draw.integers(0, 3, 500), draw.integers(0, 3, 500)
    scores, images = tables(truth, predicted)
    row = with_background(scores, images).to_pylist()[-1]
    is_true, is_predicted = truth == 0, predicted == 0
    assert row["class"] == "background"
    assert [row[name] for name in ("tp", "fp", "fn", "tn")] == [
        (is_true & is_predicted).sum(),
        (~is_true & is_predicted).sum(),
        (is_true & ~is_predicted).sum(),
        (~is_true & ~is_predicted).sum(),
    ]


@pytest.mark.parametrize("bins", [THRESHOLD_STEPS, SCORE_BINS])
def test_the_background_has_as_many_score_bins_as_the_other_classes(bins: int) -> None:
    draw = np.random.default_rng(3)
    rows = with_background(*tables(draw.integers(0, 3, 500), draw.integers(0, 3, 500), bins=bins)).to_pylist()
    assert {len(row[name]) for row in rows for name in ("positives", "negatives")} == {bins}


@pytest.mark.parametrize("bins", [THRESHOLD_STEPS, SCORE_BINS])
def test_metrics_include_the_background_if_configured(bins: int) -> None:
    draw = np.random.default_rng(1)
    stored = tables(draw.integers(0, 3, 500), draw.integers(0, 3, 500), bins=bins)
    including = {row.class_ for row in replicate_rows(*stored, MetricSettings(background=True))}
    plain = {row.class_ for row in replicate_rows(*stored, MetricSettings())}
    assert including - plain == {"background"}


def test_the_most_likely_of_several_classes_is_predicted_at_every_threshold() -> None:
    draw = np.random.default_rng(2)
    stored = tables(draw.integers(0, 3, 500), draw.integers(0, 3, 500))
    assert at_threshold(*stored, 0.8) == stored
