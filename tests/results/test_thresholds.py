import numpy as np
import pyarrow as pa
import pytest
import torch

from models import counts
from results import schema
from results.thresholds import at_threshold, on_grid, smallest_threshold


def tables(threshold: float, *, exclusive: bool) -> tuple[pa.Table, pa.Table]:
    """Scores of two images as the network's answers give them: one foreground class, or two that overlap."""
    torch.manual_seed(3)
    logits = torch.randn(2, 2, 16, 16)
    probabilities = logits.softmax(dim=1) if exclusive else logits.sigmoid()
    truth = torch.rand(2, 16, 16).gt(0.5).long() if exclusive else torch.rand(2, 2, 16, 16) > 0.5
    masks = truth[:, None].bool() if exclusive else truth
    predicted = counts.predicted_masks(probabilities, exclusive=exclusive, threshold=threshold)
    pixels = counts.pixel_counts(predicted, masks)
    bins = counts.score_histograms(probabilities[:, 1:] if exclusive else probabilities, masks)
    rows, images = [], []
    for image in range(2):
        for number in range(masks.shape[1]):
            given = {name: getattr(pixels, name)[image, number].item() for name in ("tp", "fp", "fn", "tn")}
            given |= {name: getattr(bins, name)[image, number].tolist() for name in ("positives", "negatives")}
            rows.append({"image": str(image), "class": f"c{number}", "split": "test", **given})
        ids = counts.predicted_ids(probabilities, threshold=threshold)[image : image + 1]
        seen = counts.confusion(ids, truth[image : image + 1], classes=2).flatten().tolist() if exclusive else None
        empty: dict[str, object] = {f"confidence_{name}": [0] for name in ("count", "sum", "correct")}
        images.append({"image": str(image), "patient": "p", "split": "test", "confusion": seen, **empty})
    return pa.Table.from_pylist(rows, schema=schema.scores()), pa.Table.from_pylist(images, schema=schema.images())


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("threshold", [0.005, 0.3, 0.55, 0.995])
def test_counts_from_histograms_are_those_of_scoring_at_the_threshold(threshold: float, exclusive: bool) -> None:
    derived = at_threshold(*tables(0.5, exclusive=exclusive), threshold)
    assert derived == tables(threshold, exclusive=exclusive)


def test_thresholds_between_edges_are_refused() -> None:
    assert not on_grid(0.333)
    assert all(on_grid(edge) for edge in np.arange(1, 200) / 200)
    with pytest.raises(ValueError, match=r"0\.333; allowed: multiples of 0\.005"):
        at_threshold(*tables(0.5, exclusive=True), 0.333)


@pytest.mark.parametrize(("rate", "expected"), [(0.05, 0.0), (0.04, 0.505), (0.01, 0.905), (0.0001, 0.905)])
def test_smallest_threshold_keeps_the_false_positive_rate(rate: float, expected: float) -> None:
    false_positives = np.zeros(200, np.int64)
    false_positives[[100, 180]] = 1, 4  # scores of 0.5 and 0.9, of 100 negatives

    assert smallest_threshold(false_positives, 100, rate) == pytest.approx(expected)
