import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix, roc_auc_score
from torch import Tensor

from models.counts import (
    apply_class_threshold,
    confidence_bins,
    confusion,
    one_hot,
    pixel_counts,
    predicted_ids,
    predicted_masks,
    score_histograms,
    score_sums,
)
from models.score_bins import EQUAL_EDGES, SCORE_BINS, SCORE_EDGES, first_bins

BOUNDS = np.array([0, *SCORE_EDGES, 2], np.float32)
"""Edges for numpy, which counts the last edge in the bin below it."""
STEPS = torch.from_numpy((np.arange(201) / 200).astype(np.float32))
SHARP = ((-12, 3), (2, 6))
SOFT = ((-1, 1), (1, 1))
"""Mean and standard deviation of the logits of negatives and positives."""


def scores_and_truth() -> tuple[Tensor, Tensor]:
    """Two images of three classes; the last is absent from the first image."""
    generator = torch.Generator().manual_seed(3)
    probabilities = torch.rand(2, 3, 16, 16, generator=generator)
    truth = torch.rand(2, 3, 16, 16, generator=generator) < 0.3
    truth[0, 2] = False
    return probabilities, truth


def softmax_and_ids() -> tuple[Tensor, Tensor]:
    """Two images of four classes; the last is absent from the ground truth."""
    generator = torch.Generator().manual_seed(4)
    probabilities = torch.randn(2, 4, 16, 16, generator=generator).softmax(dim=1)
    return probabilities, torch.randint(0, 3, (2, 16, 16), generator=generator)


def test_pixel_counts_equal_sklearn_including_absent_classes() -> None:
    probabilities, truth = scores_and_truth()
    counts = pixel_counts(predicted_masks(probabilities, exclusive=False, threshold=0.4), truth)
    for image in range(2):
        flat = [part[image].flatten(1).T.numpy() for part in (truth, probabilities >= 0.4)]
        expected = multilabel_confusion_matrix(*flat).reshape(3, 4)  # tn, fp, fn, tp
        confusion_counts = torch.stack([counts.tn, counts.fp, counts.fn, counts.tp], dim=2)[image]
        np.testing.assert_array_equal(confusion_counts.numpy(), expected)
    assert counts.tp.dtype == torch.int64


@pytest.mark.parametrize("exclusive", [False, True])
def test_dice_and_iou_of_pixel_counts_equal_monai_including_absent_classes(exclusive: bool) -> None:
    from monai.metrics import compute_dice, compute_iou

    probabilities, truth = softmax_and_ids() if exclusive else scores_and_truth()
    masks = one_hot(truth, 4)[:, 1:] if exclusive else truth
    predicted = predicted_masks(probabilities, exclusive=exclusive, threshold=0.4)
    counts = pixel_counts(predicted, masks)
    errors, known = counts.fp + counts.fn, masks.flatten(2).any(dim=2)
    dice = torch.where(known, 2 * counts.tp / (2 * counts.tp + errors), torch.nan)
    iou = torch.where(known, counts.tp / (counts.tp + errors), torch.nan)
    assert not known.all()
    torch.testing.assert_close(dice, compute_dice(predicted.float(), masks.float()), equal_nan=True)
    torch.testing.assert_close(iou, compute_iou(predicted.float(), masks.float()), equal_nan=True)


def test_exclusive_prediction_is_the_most_likely_class_for_any_threshold() -> None:
    probabilities, _ = softmax_and_ids()
    ids = predicted_ids(probabilities, threshold=0.9)
    assert torch.equal(ids, probabilities.argmax(dim=1))
    masks = predicted_masks(probabilities, exclusive=True, threshold=0.9)
    for k in range(3):
        assert torch.equal(masks[:, k], ids == k + 1)


def test_a_single_exclusive_class_is_predicted_from_the_threshold_on() -> None:
    foreground = torch.tensor([0.1, 0.3, 0.5]).view(1, 1, 1, 3)
    probabilities = torch.cat([1 - foreground, foreground], dim=1)
    assert predicted_ids(probabilities, threshold=0.3).flatten().tolist() == [0, 1, 1]


def test_one_hot_equals_torch() -> None:
    ids = torch.randint(0, 4, (2, 5, 6))
    expected = torch.nn.functional.one_hot(ids, 4).permute(0, 3, 1, 2).bool()
    assert torch.equal(one_hot(ids.to(torch.uint8), 4), expected)


def histogram(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.histogram(scores, bins=BOUNDS)[0]


def test_score_histograms_equal_numpy() -> None:
    probabilities, truth = scores_and_truth()
    probabilities[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 0.5])
    histograms = score_histograms(probabilities, truth)
    assert histograms.positives.shape == (2, 3, SCORE_BINS)
    for image in range(2):
        for k in range(3):
            scores, true = probabilities[image, k].numpy(), truth[image, k].numpy()
            np.testing.assert_array_equal(histograms.positives[image, k], histogram(scores[true]))
            np.testing.assert_array_equal(histograms.negatives[image, k], histogram(scores[~true]))


def test_edges_are_increasing_float32_and_the_thresholds_are_among_them() -> None:
    edges = np.array(SCORE_EDGES)
    np.testing.assert_array_equal(edges.astype(np.float32).astype(np.float64), edges)
    assert (np.diff(edges.astype(np.float32)) > 0).all()
    assert set(EQUAL_EDGES) <= set(SCORE_EDGES)
    assert tuple((np.arange(1, 200) / 200).astype(np.float32).tolist()) == EQUAL_EDGES


@pytest.mark.parametrize(
    "score",
    [0.0, 5e-324, 1e-7, 0.005, np.nextafter(np.float32(0.005), np.float32(1)), 0.5, 0.995, 1 - 2**-24, 1 - 6e-8, 1.0],
)
def test_each_score_is_in_the_bin_of_its_edges(score: float) -> None:
    value = np.float32(score)
    scores = torch.from_numpy(np.full((1, 1, 1, 1), value))
    (place,) = score_histograms(scores, torch.ones_like(scores, dtype=torch.bool)).positives[0, 0].nonzero().flatten()
    assert BOUNDS[place] <= value < BOUNDS[place + 1]
    assert (value == 1) == (place == SCORE_BINS - 1)


@pytest.mark.parametrize("edges", [SCORE_EDGES, EQUAL_EDGES])
def test_a_histogram_gives_the_pixel_counts_of_every_threshold_on_the_grid(edges: tuple[float, ...]) -> None:
    scores = torch.stack([torch.nextafter(STEPS, torch.zeros(())), STEPS, torch.nextafter(STEPS, torch.ones(()))])
    scores = scores.view(1, 1, 3, 201)
    truth = torch.ones_like(scores, dtype=torch.bool)
    counts_above = score_histograms(scores, truth, edges=edges).positives[0, 0]
    for step, first in enumerate(first_bins(len(edges) + 1)[:200]):
        assert counts_above[first:].sum() == pixel_counts(scores >= step / 200, truth).tp.item()
    if edges == SCORE_EDGES:
        assert counts_above[first_bins(SCORE_BINS)[200] :].sum() == (scores == 1).sum() == 2


def test_histograms_of_another_number_of_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="have 100 bins; allowed: 200 or 275; score the stage again"):
        first_bins(100)


def test_sums_of_scores_by_bin_equal_numpy() -> None:
    probabilities, _ = scores_and_truth()
    probabilities[0, 0, 0, :4] = torch.tensor([0.0, 1.0, 0.5, 0.05])  # each edge belongs to the bin above it
    known = torch.rand(2, 1, *probabilities.shape[2:]) < 0.5
    edges = np.append(np.float32(np.arange(20) / 20), np.inf)
    for mask in (None, known):
        sums = score_sums(probabilities, known=mask)
        assert sums.shape == (2, 3, 20)
        for image in range(2):
            for k in range(3):
                scores = probabilities[image, k].numpy().ravel()
                used = np.ones_like(scores, bool) if mask is None else mask[image, 0].numpy().ravel()
                expected = np.histogram(scores[used], edges, weights=scores[used].astype(np.float64))[0]
                np.testing.assert_allclose(sums[image, k], expected, atol=1e-6)


def test_unknown_entries_are_in_no_histogram() -> None:
    probabilities, truth = scores_and_truth()
    known = torch.rand_like(probabilities) < 0.5
    histograms = score_histograms(probabilities, truth, known=known)
    assert torch.equal(histograms.positives.sum(dim=2), (truth & known).sum(dim=(2, 3)))
    assert torch.equal(histograms.negatives.sum(dim=2), (~truth & known).sum(dim=(2, 3)))


def auc_error(logits: Tensor, truth: Tensor, *, exclusive: bool, edges: tuple[float, ...]) -> float:
    """AUC of the histograms minus that of the float32 scores, of one class."""
    channels = torch.stack([torch.zeros_like(logits), logits])
    scores = channels.softmax(dim=0)[1] if exclusive else logits.sigmoid()
    histograms = score_histograms(scores[None, None], truth[None, None], edges=edges)
    p, n = histograms.positives[0, 0].double(), histograms.negatives[0, 0].double()
    auc = (p * (n.cumsum(0) - n / 2)).sum() / (p.sum() * n.sum())
    return float(auc.item() - roc_auc_score(truth, scores))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("negatives", "positives"), [SHARP, SOFT])
def test_the_auc_of_histograms_is_that_of_the_scores(
    negatives: tuple[float, float], positives: tuple[float, float], mirrored: bool, exclusive: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(100_000, generator=generator) < 0.05
    draw = torch.randn(100_000, generator=generator)
    logits = torch.where(truth, positives[0] + positives[1] * draw, negatives[0] + negatives[1] * draw)
    if mirrored:  # nearly all scores are close to 1
        logits, truth = -logits, ~truth
    error, old = (auc_error(logits, truth, exclusive=exclusive, edges=edges) for edges in (SCORE_EDGES, EQUAL_EDGES))
    assert abs(error) < 0.001
    assert old < -0.02 if (negatives, positives) == SHARP else abs(old) < 0.001


def expected_bins(confidence: Tensor, correct: Tensor) -> list[tuple[int, float, int]]:
    """Loop over the bins of one image."""
    rows = []
    for i in range(20):
        low, high = np.float32(i / 20), np.float32((i + 1) / 20) if i < 19 else np.inf
        inside = (confidence >= low) & (confidence < high)
        rows.append((int(inside.sum()), float(confidence[inside].double().sum()), int(correct[inside].sum())))
    return rows


@pytest.mark.parametrize("exclusive", [False, True])
def test_confidence_bins_equal_those_of_a_loop(exclusive: bool) -> None:
    probabilities, truth = softmax_and_ids() if exclusive else scores_and_truth()
    bins, _ = confidence_bins(probabilities, truth, foreground=truth > 0, exclusive=exclusive)
    if exclusive:
        confidence, is_correct = probabilities.amax(dim=1), probabilities.argmax(dim=1) == truth
    else:
        confidence = torch.where(probabilities >= 0.5, probabilities, 1 - probabilities)
        is_correct = (probabilities >= 0.5) == truth
    for image in range(2):
        pixels, sums, correct = zip(*expected_bins(confidence[image], is_correct[image]), strict=True)
        assert bins.pixels[image].tolist() == list(pixels)
        assert bins.correct[image].tolist() == list(correct)
        assert bins.confidence[image].tolist() == pytest.approx(list(sums), abs=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
def test_confidence_bins_of_foreground_equal_those_of_a_loop_over_its_pixels(exclusive: bool) -> None:
    probabilities, truth = softmax_and_ids() if exclusive else scores_and_truth()
    if exclusive:
        chosen = (truth != 0) | (probabilities.argmax(dim=1) != 0)
        confidence, is_correct = probabilities.amax(dim=1), probabilities.argmax(dim=1) == truth
    else:
        chosen = truth | (probabilities >= 0.9)
        confidence = torch.where(probabilities >= 0.5, probabilities, 1 - probabilities)
        is_correct = (probabilities >= 0.5) == truth
    assert 0 < chosen.sum() < chosen.numel()
    _, bins = confidence_bins(probabilities, truth, foreground=chosen, exclusive=exclusive)
    for image in range(2):
        inside = chosen[image]
        pixels, sums, correct = zip(*expected_bins(confidence[image][inside], is_correct[image][inside]), strict=True)
        assert bins.pixels[image].tolist() == list(pixels)
        assert bins.correct[image].tolist() == list(correct)
        assert bins.confidence[image].tolist() == pytest.approx(list(sums), abs=1e-6)


def test_sums_of_confidence_do_not_depend_on_the_order_of_pixels() -> None:
    probabilities, truth = scores_and_truth()
    order = torch.randperm(256)
    shuffled = [part.flatten(2)[..., order].view_as(part) for part in (probabilities, truth)]
    plain = confidence_bins(probabilities, truth, foreground=truth, exclusive=False)
    again = confidence_bins(shuffled[0], shuffled[1], foreground=shuffled[1], exclusive=False)
    for expected, other in zip(plain, again, strict=True):
        assert torch.equal(expected.confidence, other.confidence)


def test_confusion_equals_sklearn_with_truth_in_rows() -> None:
    probabilities, truth = softmax_and_ids()
    predicted = predicted_ids(probabilities)
    matrix = confusion(predicted, truth.to(torch.uint8), classes=4)
    for image in range(2):
        flat = (truth[image].flatten(), predicted[image].flatten())
        np.testing.assert_array_equal(matrix[image], confusion_matrix(*flat, labels=range(4)))


def test_an_id_outside_the_class_list_is_refused_and_not_counted_elsewhere() -> None:
    ids = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"class ids 0\.\.255; allowed: 0\.\.2"):
        confusion(ids, ids.clone().index_fill_(1, torch.tensor([0]), 255), classes=3)


def test_pixels_of_an_excluded_channel_get_the_next_most_likely_class() -> None:
    pixels = torch.tensor([[0.1, 0.5, 0.4], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]]).T.reshape(1, 3, 1, 3)

    assert predicted_ids(apply_class_threshold(pixels, 1, 0.55)).tolist() == [[[2, 1, 1]]]
    assert predicted_ids(apply_class_threshold(pixels, 1, 0.7)).tolist() == [[[2, 0, 1]]]
    assert predicted_ids(apply_class_threshold(pixels, 1, 0.0)).tolist() == predicted_ids(pixels).tolist()
