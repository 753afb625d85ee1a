from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import binary_calibration_error

from results.metrics import formulas
from results.metrics.formulas import Confidence, Counts, FloatArray

CLASSES = 3
BINS = 200
Masks = tuple[FloatArray, FloatArray]


@pytest.fixture(name="masks")
def _masks() -> Masks:
    """Truth (images, classes, pixels) of 0/1 and scores at bin centres; class 2 is absent from the truth."""
    random = np.random.default_rng(0)
    truth = random.random((4, CLASSES, 400)) < 0.3
    truth[:, 2] = False
    truth[1, 0] = False
    scores = np.clip(0.25 * truth + random.random(truth.shape) * 0.75, 0, 0.9999)
    return truth.astype(float), (np.floor(scores * BINS) + 0.5) / BINS


def counts_of(truth: FloatArray, scores: FloatArray) -> Counts:
    decided = scores >= 0.5

    def histogram(chosen: FloatArray) -> FloatArray:
        weights = chosen.reshape(-1, chosen.shape[-1])
        rows = scores.reshape(weights.shape)
        bins = [np.histogram(row, BINS, (0, 1), weights=w)[0] for row, w in zip(rows, weights, strict=True)]
        return np.reshape(bins, (*chosen.shape[:-1], BINS)).astype(float)

    return Counts(
        tp=(truth * decided).sum(-1),
        fp=((1 - truth) * decided).sum(-1),
        fn=(truth * ~decided).sum(-1),
        tn=((1 - truth) * ~decided).sum(-1),
        positives=histogram(truth),
        negatives=histogram(1 - truth),
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("iou", sklearn_metrics.jaccard_score),
        ("dice", sklearn_metrics.f1_score),
        ("f1", sklearn_metrics.f1_score),
        ("precision", sklearn_metrics.precision_score),
        ("recall", sklearn_metrics.recall_score),
        ("accuracy", sklearn_metrics.accuracy_score),
    ],
)
def test_each_metric_equals_sklearn_if_the_class_is_in_the_truth(
    masks: Masks, ours: str, theirs: Callable[..., float]
) -> None:
    truth, scores = masks
    values = getattr(formulas, ours)(counts_of(truth, scores))
    for image, name in zip(*np.nonzero(truth.any(-1)), strict=True):
        expected = theirs(truth[image, name], scores[image, name] >= 0.5)
        assert values[image, name] == pytest.approx(expected)


def test_dice_of_an_empty_mask_is_one_without_and_zero_with_a_false_positive() -> None:
    truth = np.zeros((4, 1, 6))
    truth[2:, :, :2] = 1
    scores = np.full((4, 1, 6), 0.1)
    scores[[1, 3], :, 1] = 0.9
    counts = counts_of(truth, scores)
    assert formulas.dice_empty_is_one(counts)[:, 0].tolist() == [1, 0, 0, 2 / 3]
    assert np.array_equal(formulas.dice_empty_is_one(counts)[2:], formulas.dice(counts)[2:])


def test_dice_of_an_image_without_scored_pixels_is_undefined() -> None:
    nothing = np.zeros((1, 1))
    counts = Counts(
        tp=nothing, fp=nothing, fn=nothing, tn=nothing, positives=np.zeros((1, 1, 1)), negatives=np.zeros((1, 1, 1))
    )
    assert np.isnan(formulas.dice_empty_is_one(counts)).all()


def test_auc_equals_sklearn_if_scores_lie_on_the_bins(masks: Masks) -> None:
    truth, scores = masks
    values = formulas.auc(counts_of(truth, scores))
    for image, name in zip(*np.nonzero(truth.any(-1)), strict=True):
        expected = sklearn_metrics.roc_auc_score(truth[image, name], scores[image, name])
        assert values[image, name] == pytest.approx(expected)


def test_auc_is_undefined_without_positives(masks: Masks) -> None:
    assert np.isnan(formulas.auc(counts_of(*masks))[:, 2]).all()


def test_a_class_neither_present_nor_predicted_has_no_iou_dice_precision_or_recall() -> None:
    nothing = counts_of(np.zeros((1, 1, 50)), np.zeros((1, 1, 50)))
    for formula in (formulas.iou, formulas.dice, formulas.f1, formulas.precision, formulas.recall):
        assert np.isnan(formula(nothing)).all()
    assert formulas.accuracy(nothing) == 1


def test_calibration_error_equals_torchmetrics() -> None:
    random = np.random.default_rng(1)
    scores, correct = random.random(3000), random.random(3000) < 0.4
    place = np.minimum((scores * 20).astype(int), 19)
    bins = Confidence(
        count=np.bincount(place, minlength=20).astype(float),
        total=np.bincount(place, scores, minlength=20),
        correct=np.bincount(place, correct, minlength=20),
    )
    expected = binary_calibration_error(torch.tensor(scores), torch.tensor(correct).int(), n_bins=20)
    assert formulas.ece(bins) == pytest.approx(float(expected), abs=1e-6)
    assert formulas.confidence(bins) == pytest.approx(scores.mean())


def test_calibration_without_pixels_is_undefined() -> None:
    empty = Confidence(count=np.zeros(20), total=np.zeros(20), correct=np.zeros(20))
    assert np.isnan(formulas.ece(empty))
    assert np.isnan(formulas.confidence(empty))


def test_calibration_by_class_is_the_expected_error_of_each_class_against_the_others() -> None:
    """Nixon et al. (2019), Kull et al. (2019): 20 equal bins of the probability of the class."""
    random = np.random.default_rng(2)
    scores = random.dirichlet([0.4, 1.0, 0.6], 2000).T[None]  # (1, classes, pixels)
    truth = (random.integers(0, 3, 2000) == np.arange(3)[:, None])[None].astype(float)
    expected = np.zeros(3)
    for k in range(3):
        for low in np.arange(20) / 20:
            inside = (scores[0, k] >= low) & (scores[0, k] < low + 1 / 20)
            if inside.any():
                gap = abs(truth[0, k, inside].mean() - scores[0, k, inside].mean())
                expected[k] += inside.mean() * gap
    counts = counts_of(truth, scores)
    sums = [np.histogram(row, 20, (0, 1), weights=row)[0] for row in scores[0]]
    values = formulas.classwise_ece(replace(counts, score_sums=np.array(sums)[None]))
    np.testing.assert_allclose(values[0], expected, atol=1e-9)


def test_calibration_by_class_needs_the_sums_of_scores(masks: Masks) -> None:
    counts = counts_of(*masks)
    assert "classwise_ece" not in formulas.per_class_formulas(counts)
    assert "classwise_ece" in formulas.per_class_formulas(replace(counts, score_sums=np.zeros((4, CLASSES, 20))))
