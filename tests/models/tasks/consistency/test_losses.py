"""Losses against other predictions, compared with torch."""

import pytest
import torch
import torch.nn.functional as F

from models.tasks.consistency.losses import pseudo_label_loss, squared_distance


def random(*, seed: int) -> torch.Tensor:
    return torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(seed))


def test_the_squared_distance_is_a_sum_over_classes_and_a_mean_over_pixels() -> None:
    first, second = random(seed=1).softmax(1), random(seed=2).softmax(1)
    expected = F.mse_loss(first, second, reduction="sum") / (2 * 5 * 6)
    torch.testing.assert_close(squared_distance(first, second), expected)


def test_pseudo_labels_of_exclusive_classes_are_the_most_likely_ones() -> None:
    logits, targets = random(seed=1), random(seed=2).softmax(1)
    expected = F.cross_entropy(logits, targets.argmax(1))
    torch.testing.assert_close(pseudo_label_loss(logits, targets, exclusive=True), expected)


def test_pseudo_labels_of_overlapping_classes_are_those_above_one_half() -> None:
    logits, targets = random(seed=1), random(seed=2).sigmoid()
    expected = F.binary_cross_entropy_with_logits(logits, (targets >= 0.5).float())
    torch.testing.assert_close(pseudo_label_loss(logits, targets, exclusive=False), expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_unconfident_pixels_count_in_the_mean_with_a_loss_of_0(exclusive: bool) -> None:
    logits, scores = random(seed=1), random(seed=2)
    targets = scores.softmax(1) if exclusive else scores.sigmoid()
    if exclusive:
        certainty, cost = targets.max(1).values, F.cross_entropy(logits, targets.argmax(1), reduction="none")
    else:
        certainty = torch.maximum(targets, 1 - targets)
        cost = F.binary_cross_entropy_with_logits(logits, (targets >= 0.5).float(), reduction="none")
    assert 0 < (certainty >= 0.6).float().mean() < 1
    expected = (cost * (certainty >= 0.6)).mean()
    torch.testing.assert_close(pseudo_label_loss(logits, targets, exclusive=exclusive, confidence=0.6), expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_ignored_pixels_are_excluded_from_the_mean(exclusive: bool) -> None:
    logits, targets = random(seed=1), random(seed=2).softmax(1)
    counted = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    counted[..., :2, :] = True
    expected = pseudo_label_loss(logits[..., :2, :], targets[..., :2, :], exclusive=exclusive)
    torch.testing.assert_close(pseudo_label_loss(logits, targets, exclusive=exclusive, counted=counted), expected)


def test_each_overlapping_class_has_its_own_ignored_pixels() -> None:
    logits, targets = random(seed=1), random(seed=2).sigmoid()
    counted = random(seed=3) > 0
    cost = F.binary_cross_entropy_with_logits(logits, (targets >= 0.5).float(), reduction="none")
    loss = pseudo_label_loss(logits, targets, exclusive=False, counted=counted)
    torch.testing.assert_close(loss, cost[counted].mean())


def test_other_predictions_have_no_gradient() -> None:
    logits, scores = random(seed=1).requires_grad_(), random(seed=2).requires_grad_()
    pseudo_label_loss(logits, scores.softmax(1), exclusive=True).backward()
    assert logits.grad is not None
    assert scores.grad is None
