from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models import counts
from models.score_bins import EQUAL_EDGES, SCORE_BINS, SCORE_EDGES, THRESHOLD_STEPS, first_bins
from results import schema
from results.metrics.thresholds import at_threshold, coarse_score_file, coarsened, on_grid, smallest_threshold

FOREGROUND = ("foreground_count", "foreground_sum", "foreground_correct")


def tables(
    threshold: float,
    *,
    exclusive: bool,
    edges: tuple[float, ...] = SCORE_EDGES,
    scale: float = 1.0,
    background: bool = False,
) -> tuple[pa.Table, pa.Table]:
    """Scores of two images as output by a network: one foreground class, or two that overlap."""
    torch.manual_seed(3)
    logits = scale * torch.randn(2, 2, 16, 16)
    probabilities = logits.softmax(dim=1) if exclusive else logits.sigmoid()
    truth = torch.rand(2, 16, 16).gt(0.5).long() if exclusive else torch.rand(2, 2, 16, 16) > 0.5
    masks = truth[:, None].bool() if exclusive else truth
    predicted = counts.predicted_masks(probabilities, exclusive=exclusive, threshold=threshold)
    scores = probabilities[:, 1:] if exclusive else probabilities
    names = ["c0", "c1"][: masks.shape[1]]
    if exclusive and background:
        masks, predicted = torch.cat([masks, ~masks], dim=1), torch.cat([predicted, ~predicted], dim=1)
        scores, names = probabilities.flip(1), [*names, "background"]
    pixels = counts.pixel_counts(predicted, masks)
    bins = counts.score_histograms(scores, masks, edges=edges)
    rows, images = [], []
    for image in range(2):
        for number, name in enumerate(names):
            pixel_counts = {name: getattr(pixels, name)[image, number].item() for name in ("tp", "fp", "fn", "tn")}
            pixel_counts |= {name: getattr(bins, name)[image, number].tolist() for name in ("positives", "negatives")}
            rows.append({"image": str(image), "class": name, "split": "test", **pixel_counts})
        ids = counts.predicted_ids(probabilities, threshold=threshold)[image : image + 1]
        matrix = counts.confusion(ids, truth[image : image + 1], classes=2).flatten().tolist() if exclusive else None
        empty: dict[str, object] = {f"confidence_{name}": [0] for name in ("count", "sum", "correct")}
        images.append({"image": str(image), "patient": "p", "split": "test", "confusion": matrix, **empty})
    return pa.Table.from_pylist(rows, schema=schema.scores()), pa.Table.from_pylist(images, schema=schema.images())


@pytest.mark.parametrize("edges", [SCORE_EDGES, EQUAL_EDGES])
@pytest.mark.parametrize(("exclusive", "background"), [(True, False), (True, True), (False, False)])
def test_counts_from_histograms_are_those_of_predictions_at_the_threshold(
    exclusive: bool, background: bool, edges: tuple[float, ...]
) -> None:
    def at(threshold: float) -> tuple[pa.Table, pa.Table]:
        return tables(threshold, exclusive=exclusive, edges=edges, scale=4, background=background)

    stored = at(0.5)
    for step in range(200):
        assert at_threshold(*stored, step / 200) == at(step / 200)


def test_at_threshold_1_only_scores_of_exactly_1_are_positive() -> None:
    stored = tables(0.5, exclusive=False, scale=12)
    derived = at_threshold(*stored, 1.0)
    assert derived == tables(1.0, exclusive=False, scale=12)
    assert sum(derived[0]["tp"].to_pylist()) > 0


def with_foreground(images: pa.Table) -> pa.Table:
    for name in FOREGROUND:
        place = images.schema.get_field_index(name)
        column = pa.array([[1] * 20] * len(images), images.schema.field(place).type)
        images = images.set_column(place, images.schema.field(place), column)
    return images


@pytest.mark.parametrize("exclusive", [True, False])
def test_calibration_of_foreground_is_null_at_another_threshold(exclusive: bool) -> None:
    scores, images = tables(0.5, exclusive=exclusive)
    _, derived = at_threshold(scores, with_foreground(images), 0.3)
    assert all(derived[name].null_count == len(images) for name in FOREGROUND)
    assert derived["confidence_count"] == images["confidence_count"]
    _, old = at_threshold(scores, images.drop_columns(FOREGROUND), 0.3)
    assert not {*FOREGROUND} & {*old.column_names}


def test_coarse_bins_are_those_of_equal_edges() -> None:
    fine, equal = (tables(0.5, exclusive=False, edges=edges, scale=6)[0] for edges in (SCORE_EDGES, EQUAL_EDGES))
    for name in ("positives", "negatives"):
        assert coarsened(np.array(fine[name].to_pylist())).tolist() == equal[name].to_pylist()


@pytest.mark.parametrize(("edges", "coarse"), [(SCORE_EDGES, False), (EQUAL_EDGES, True)])
def test_files_with_200_equal_bins_are_recognised(edges: tuple[float, ...], coarse: bool, tmp_path: Path) -> None:
    scores = tables(0.5, exclusive=False, edges=edges)[0]
    pq.write_table(scores, tmp_path / "scores.parquet", row_group_size=3)
    assert coarse_score_file(tmp_path / "scores.parquet") is coarse


def test_a_file_without_scores_is_not_reported_as_coarse(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([], schema=schema.scores()), tmp_path / "scores.parquet")
    assert not coarse_score_file(tmp_path / "scores.parquet")


def test_thresholds_between_edges_are_refused() -> None:
    assert not on_grid(0.333)
    assert all(on_grid(edge) for edge in np.arange(1, 200) / 200)
    with pytest.raises(ValueError, match=r"0\.333; allowed: multiples of 0\.005"):
        at_threshold(*tables(0.5, exclusive=True), 0.333)


@pytest.mark.parametrize("bins", [THRESHOLD_STEPS, SCORE_BINS])
@pytest.mark.parametrize(("rate", "expected"), [(0.05, 0.0), (0.04, 0.505), (0.01, 0.905), (0.0001, 0.905)])
def test_smallest_threshold_keeps_the_false_positive_rate(rate: float, expected: float, bins: int) -> None:
    false_positives = np.zeros(bins, np.int64)
    places = first_bins(bins)
    false_positives[[places[100], places[180]]] = 1, 4  # scores of 0.5 and 0.9, of 100 negatives

    assert smallest_threshold(false_positives, 100, rate) == pytest.approx(expected)


def test_smallest_threshold_between_multiples_of_0_005_is_the_next_one() -> None:
    false_positives = np.zeros(SCORE_BINS, np.int64)
    false_positives[3] = 5  # scores far below 0.005
    assert smallest_threshold(false_positives, 100, 0.01) == 0.005


def test_smallest_threshold_is_1_where_scores_of_exactly_1_exceed_the_rate() -> None:
    false_positives = np.zeros(SCORE_BINS, np.int64)
    false_positives[-2:] = 3, 2
    assert smallest_threshold(false_positives, 100, 0.02) == 1.0
    assert smallest_threshold(false_positives, 100, 0.01) == 1.0
