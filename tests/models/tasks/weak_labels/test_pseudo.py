"""Pseudo-labels: their format, and the task that learns from them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses.functions import cross_entropy, dice
from models.task_settings.pseudo_labels import PseudoLabelBlock, PseudoLabelSettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs, WeakTarget
from models.tasks.weak_labels.pseudo import PseudoLabels, pseudo_labels, soft_target
from tests.support.consistency import CLASSES, IMAGES, SIDE, network

LOSS = {"cross_entropy": 0.5, "dice": 1.0}


def task(**block: object) -> PseudoLabels:
    """Return a task of two exclusive classes."""
    settings = PseudoLabelSettings.model_validate({"loss": LOSS, "pseudo_labels": block})
    made = make_task(settings, Outputs(names=("a", "b"), exclusive=True))
    assert isinstance(made, PseudoLabels)
    return made


def predicted(*, exclusive: bool) -> Tensor:
    """Return probabilities (N, channels, height, width)."""
    logits = 2 * torch.randn(IMAGES, CLASSES, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    return logits.softmax(dim=1) if exclusive else logits.sigmoid()


def batch(labels: Tensor, *, update: int = 0, updates: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images, others = torch.rand(2, IMAGES, 1, SIDE, SIDE, generator=generator)
    target = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=generator).byte()
    weak = WeakTarget(masks=labels)
    return Batch(images=images, target=target, unlabelled=others, weak=weak, update=update, updates=updates)


@pytest.mark.parametrize("confidence", [0.0, 0.8])
def test_hard_labels_of_exclusive_classes_are_the_most_likely_classes(confidence: float) -> None:
    probabilities = predicted(exclusive=True)
    found = pseudo_labels(probabilities, PseudoLabelBlock(confidence=confidence), exclusive=True).numpy()
    values = probabilities.numpy()
    expected = np.where(values.max(axis=1) < confidence, 255, values.argmax(axis=1))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    assert (found == 255).any() == (confidence > 0)


@pytest.mark.parametrize("confidence", [0.0, 0.8])
def test_hard_labels_of_overlapping_classes_are_those_that_are_more_likely_than_not(confidence: float) -> None:
    probabilities = predicted(exclusive=False)
    found = pseudo_labels(probabilities, PseudoLabelBlock(confidence=confidence), exclusive=False).numpy()
    values = probabilities.numpy()
    expected = np.where(np.maximum(values, 1 - values) < confidence, 255, values >= 0.5)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_soft_labels_stand_for_the_probabilities(exclusive: bool) -> None:
    probabilities, block = predicted(exclusive=exclusive), PseudoLabelBlock(labels="soft", confidence=0.8)
    labels = pseudo_labels(probabilities, block, exclusive=exclusive)
    assert labels.shape == (IMAGES, CLASSES - exclusive, SIDE, SIDE)
    target = soft_target(labels, exclusive=exclusive)
    certain = probabilities.amax(dim=1, keepdim=True) if exclusive else torch.maximum(probabilities, 1 - probabilities)
    is_known = (certain >= 0.8).expand_as(probabilities)
    assert is_known.any()
    assert not is_known.all()
    assert torch.isnan(target).equal(~is_known)
    assert (target - probabilities)[is_known].abs().max() < 1 / 254
    if exclusive:
        torch.testing.assert_close(target.nansum(dim=1), is_known[:, 0].float())


@pytest.mark.parametrize("channels", [2, 20, 200])
@pytest.mark.parametrize("largest", [None, 0.6])
def test_soft_labels_differ_by_less_than_a_step_in_every_channel(channels: int, largest: float | None) -> None:
    probabilities = torch.full((1, channels, 2, 2), 1 / channels)
    if largest is not None:
        probabilities[:] = (1 - largest) / (channels - 1)
        probabilities[:, 0] = largest
    labels = pseudo_labels(probabilities, PseudoLabelBlock(labels="soft"), exclusive=True)
    target = soft_target(labels, exclusive=True)
    assert (target - probabilities).abs().max() < 1 / 254
    torch.testing.assert_close(target.sum(dim=1), torch.ones(1, 2, 2))


def test_soft_labels_of_0_are_background() -> None:
    target = soft_target(torch.zeros(1, 2, 3, 3, dtype=torch.uint8), exclusive=True)
    assert target[:, 0].eq(1).all()
    assert target[:, 1:].eq(0).all()


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_the_loss_is_that_of_masks_plus_the_weighted_one_of_pseudo_labels(labels: str) -> None:
    made = task(labels=labels, confidence=0.6, weight=0.7)
    probabilities = predicted(exclusive=True)
    given = batch(pseudo_labels(probabilities, made.block, exclusive=True))
    first = network()
    masks = 0.5 * cross_entropy(first(given.images), given.target) + dice(
        first(given.images), given.target, exclusive=True
    )
    assert given.unlabelled is not None
    logits = first(given.unlabelled)
    certain = probabilities.amax(dim=1) >= 0.6
    pixels, truth = (values.movedim(1, -1)[certain] for values in (logits, probabilities))
    if labels == "hard":
        truth = F.one_hot(truth.argmax(dim=-1), CLASSES).float()
    p = pixels.softmax(dim=-1)
    common = torch.minimum(p, truth).sum(dim=0) if labels == "soft" else (p * truth).sum(dim=0)
    overlap = (1 - (2 * common + 1) / (p.sum(dim=0) + truth.sum(dim=0) + 1))[1:].mean()
    expected = masks + 0.7 * (0.5 * F.cross_entropy(pixels, truth) + overlap)
    torch.testing.assert_close(made.loss(network(), given), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_pixels_below_the_confidence_have_no_gradient(labels: str) -> None:
    made, probabilities = task(labels=labels, confidence=0.7), predicted(exclusive=True)
    logits = torch.zeros_like(probabilities).requires_grad_()
    given = batch(pseudo_labels(probabilities, made.block, exclusive=True))
    made.pool_loss(lambda _: logits, given).backward()  # type: ignore[arg-type]
    assert logits.grad is not None
    assert logits.grad.abs().sum(dim=1).bool().equal(probabilities.amax(dim=1) >= 0.7)


@pytest.mark.parametrize(("update", "share"), [(0, math.exp(-5)), (25, math.exp(-1.25)), (50, 1), (90, 1)])
def test_the_weight_rises_in_the_first_part_of_all_updates(update: int, share: float) -> None:
    made = task(weight=2.0, ramp_up=0.5)
    given = batch(pseudo_labels(predicted(exclusive=True), made.block, exclusive=True), update=update, updates=100)
    first = network()
    labelled, pool = made.labelled_loss(first, given), made.pool_loss(first, given)
    torch.testing.assert_close(made.loss(network(), given), labelled + 2 * share * pool)


@pytest.mark.parametrize(
    ("loss", "block", "message"),
    [
        ({"focal": 1.0}, {"labels": "soft"}, "loss is focal with pseudo_labels.labels: soft; allowed: cross_entropy, "),
        ({"dice": 1.0, "boundary": 0.1}, {"confidence": 0.9}, "boundary with pseudo_labels.confidence 0.9"),
    ],
)
def test_losses_that_the_labels_do_not_allow_are_refused(
    loss: dict[str, float], block: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PseudoLabelSettings.model_validate({"loss": loss, "pseudo_labels": block})
    PseudoLabelSettings.model_validate({"loss": loss})
