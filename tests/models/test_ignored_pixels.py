"""Pixels without a label count in no loss, validation score or statistic: references use the labelled pixels alone."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.source import IGNORE as STORED
from models.counts import (
    IGNORE,
    confidence_bins,
    confusion,
    is_labelled,
    one_hot,
    pixel_counts,
    predicted_ids,
    predicted_masks,
    score_histograms,
)
from models.losses.boundary import boundary_weights
from models.losses.functions import losses
from models.settings import AdversarialSettings, LossName, SegmentationSettings, losses_of
from models.tasks import make_task
from models.tasks.adversarial import Adversarial
from models.tasks.base import Batch, Outputs
from tests.support.networks import network_without_parameters
from tests.support.workers import together

MASK_LOSSES = losses_of["mask"]
SPATIAL = ("cldice", "boundary")
"""Losses that depend on neighbouring pixels."""
CLASSES, SIDE = 4, 16
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25])


def case(images: int = 3) -> tuple[Tensor, Tensor]:
    """Logits and ids: few ignored pixels in the first image, a border of them in the second, no others in the third."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(images, CLASSES, SIDE, SIDE, generator=generator) * 3
    ids = torch.randint(0, CLASSES, (images, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    ids[0, 3, 4:9], ids[1, :4], ids[2] = IGNORE, IGNORE, IGNORE
    return logits, ids


def labelled_entries(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The labelled pixels alone, in double precision: logits (pixels, classes) and ids (pixels,)."""
    labelled = ids != IGNORE
    return logits.double().movedim(1, -1)[labelled], ids[labelled].long()


def soft_sizes(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Soft intersection, prediction and truth of the foreground classes."""
    p, truth = logits.softmax(dim=1)[:, 1:], F.one_hot(ids, CLASSES)[:, 1:]
    return (p * truth).sum(dim=0), p.sum(dim=0), truth.sum(dim=0).double()


def expected_loss(name: str, logits: Tensor, ids: Tensor, weights: Tensor, near: Tensor) -> Tensor:
    """The loss of pixels (pixels, classes), by its formula; `near` are their boundary weights."""
    p, truth = logits.softmax(dim=1), F.one_hot(ids, CLASSES).double()
    true_p, at_truth = p[torch.arange(len(ids)), ids], weights[ids]
    intersection, predicted, actual = soft_sizes(logits, ids)
    match name:
        case "cross_entropy":
            return -(true_p.log() * at_truth).sum() / at_truth.sum()
        case "boundary_cross_entropy":
            return -(true_p.log() * (at_truth + near)).sum() / (at_truth + near).sum()
        case "binary_cross_entropy":
            return (F.binary_cross_entropy(p, truth, reduction="none") * weights).mean(dim=0).sum() / weights.sum()
        case "focal":
            return -((1 - true_p) ** 2 * true_p.log() * at_truth).sum() / at_truth.sum()
        case "dice":
            per_class = 1 - (2 * intersection + 1) / (predicted + actual + 1)
        case "log_dice":
            per_class = -((2 * intersection + 1) / (predicted + actual + 1)).log()
        case "jaccard":
            per_class = 1 - (intersection + 1) / (predicted + actual - intersection + 1)
        case "tversky":
            errors = 0.3 * (predicted - intersection) + 0.7 * (actual - intersection)
            per_class = 1 - (intersection + 1) / (intersection + errors + 1)
        case "focal_tversky":
            errors = 0.3 * (predicted - intersection) + 0.7 * (actual - intersection)
            per_class = (1 - (intersection + 1) / (intersection + errors + 1)) ** 0.75
        case _:
            raise AssertionError(name)
    return (per_class * weights[1:]).sum() / weights[1:].sum()


def test_both_packages_use_the_same_id() -> None:
    assert IGNORE == STORED == 255


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", [name for name in MASK_LOSSES if name not in SPATIAL])
def test_a_loss_is_that_of_the_labelled_pixels_and_has_no_gradient_elsewhere(
    name: LossName, weights: Tensor | None
) -> None:
    logits, ids = case()
    logits.requires_grad_()
    loss = losses[name](logits, ids, exclusive=True, class_weights=weights)
    loss.backward()
    near = boundary_weights(ids)[ids != IGNORE].double()
    used = torch.ones(CLASSES).double() if weights is None else weights.double()
    expected = expected_loss(name, *labelled_entries(logits.detach(), ids), used, near)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logits.grad is not None
    gradient = logits.grad.movedim(1, -1)
    assert not gradient[ids == IGNORE].any()
    assert gradient[ids != IGNORE].any(dim=1).all()


@pytest.mark.parametrize("name", SPATIAL)
def test_losses_of_shapes_have_no_gradient_at_pixels_without_a_label(name: LossName) -> None:
    logits, ids = case()
    logits.requires_grad_()
    losses[name](logits, ids, exclusive=True).backward()
    assert logits.grad is not None
    gradient = logits.grad.movedim(1, -1)
    assert not gradient[ids == IGNORE].any()
    assert gradient[ids != IGNORE].any()


@pytest.mark.parametrize("name", MASK_LOSSES)
def test_predictions_at_ignored_pixels_do_not_change_the_loss(name: LossName) -> None:
    logits, ids = case()
    other = torch.where((ids == IGNORE)[:, None], 50 * torch.randn_like(logits), logits)
    results = []
    for values in (logits, other):
        values.requires_grad_()
        loss = losses[name](values, ids, exclusive=True)
        loss.backward()
        results.append((loss.detach(), values.grad))
    for first, second in zip(*results, strict=True):
        assert first is not None
        assert second is not None
        assert torch.equal(first, second)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", MASK_LOSSES)
def test_a_batch_without_labels_has_a_loss_of_0(name: LossName, weights: Tensor | None) -> None:
    logits, ids = case()
    logits.requires_grad_()
    loss = losses[name](logits, torch.full_like(ids, IGNORE), exclusive=True, class_weights=weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_ignored_pixels_are_not_a_region_and_have_no_boundary_weight() -> None:
    ids = torch.zeros(1, 9, 9, dtype=torch.uint8)
    ids[0, :, 0], ids[0, :, 8] = 1, 1
    plain = boundary_weights(ids)
    ids[0, :, 3:6] = IGNORE
    expected = torch.where(ids == IGNORE, 0.0, plain)
    assert torch.equal(boundary_weights(ids), expected)
    ids[0, :, 8] = 0
    assert not boundary_weights(ids).any()


SHARES = ([0, 2], [1])
"""The second image of the first worker has no label."""
ALONE = ([2], [0, 1])
"""The first worker has no label."""


def shared_losses(rank: int, world: int) -> dict[tuple[str, int], tuple[Tensor, Tensor]]:
    results: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
    logits, ids = case()
    for name in MASK_LOSSES:
        for number, shares in enumerate((SHARES, ALONE)):
            share = logits[shares[rank]].clone().requires_grad_()
            loss = losses[name](share, ids[shares[rank]], exclusive=True, class_weights=WEIGHTS)
            loss.backward()
            assert share.grad is not None
            results[name, number] = (loss.detach(), share.grad)
    return results


def test_workers_have_the_loss_and_the_gradients_of_one() -> None:
    ranks: list[Any] = together(2, shared_losses)
    logits, ids = case()
    for name in MASK_LOSSES:
        single = logits.clone().requires_grad_()
        loss = losses[name](single, ids, exclusive=True, class_weights=WEIGHTS)
        loss.backward()
        assert single.grad is not None
        for number, shares in enumerate((SHARES, ALONE)):
            for rank, share in enumerate(shares):
                value, gradient = ranks[rank][name, number]
                torch.testing.assert_close(value, loss.detach())
                torch.testing.assert_close(gradient, single.grad[share])


def random_predictions() -> tuple[Tensor, Tensor, Tensor]:
    logits, ids = case()
    return logits.softmax(dim=1), ids, is_labelled(ids)


def test_pixel_counts_and_histograms_are_those_of_the_labelled_pixels() -> None:
    probabilities, ids, labelled = random_predictions()
    predicted, truth = predicted_masks(probabilities, exclusive=True), one_hot(ids, CLASSES)[:, 1:]
    known = labelled.unsqueeze(1)
    counts = pixel_counts(predicted, truth, known=known)
    bins = score_histograms(probabilities[:, 1:], truth, known=known)
    for image in range(3):
        inside = labelled[image]
        for k in range(CLASSES - 1):
            p, t = predicted[image, k][inside].numpy(), truth[image, k][inside].numpy()
            expected = [(p & t).sum(), (p & ~t).sum(), (~p & t).sum(), (~p & ~t).sum()]
            assert [int(part[image, k]) for part in counts] == expected
            score = probabilities[image, k + 1][inside][None, None]
            labelled_pixels = score_histograms(score, truth[image, k][inside][None, None])
            assert torch.equal(bins.positives[image, k], labelled_pixels.positives[0, 0])
            assert torch.equal(bins.negatives[image, k], labelled_pixels.negatives[0, 0])


def test_confidence_and_confusion_are_those_of_the_labelled_pixels() -> None:
    probabilities, ids, labelled = random_predictions()
    predicted, foreground = predicted_ids(probabilities), (ids != 0) | (predicted_ids(probabilities) != 0)
    bins_of_batch = confidence_bins(probabilities, ids.long(), foreground=foreground, exclusive=True, known=labelled)
    pairs = confusion(predicted, ids.long(), classes=CLASSES, known=labelled)
    for image in range(3):
        inside = labelled[image]
        pixels = probabilities[image].movedim(0, -1)[inside].T[None, :, :, None]
        labelled_pixels = confidence_bins(
            pixels, ids[image][inside].long()[None, :, None], foreground=foreground[image][inside][None, :, None],
            exclusive=True,
        )  # fmt: skip
        for actual, expected in zip(bins_of_batch, labelled_pixels, strict=True):
            for column, expected_column in zip(actual, expected, strict=True):
                assert torch.equal(column[image], expected_column[0])
        table = np.zeros((CLASSES, CLASSES), np.int64)
        np.add.at(table, (ids[image][inside].numpy(), predicted[image][inside].numpy()), 1)
        np.testing.assert_array_equal(pairs[image], table)


def test_an_unknown_id_beside_ignored_pixels_is_refused() -> None:
    _, ids, labelled = random_predictions()
    ids[0, 0, 0] = CLASSES
    with pytest.raises(ValueError, match=rf"class ids 0\.\.{CLASSES}"):
        confusion(torch.zeros_like(ids), ids, classes=CLASSES, known=labelled)


class Given(nn.Module):
    """A network with given logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, _: Tensor) -> Tensor:
        return self.logits


def test_validation_scores_are_those_of_the_labelled_pixels() -> None:
    logits, ids = case()
    names = ("a", "b", "c")
    task = make_task(SegmentationSettings(loss={"cross_entropy": 1.0}), Outputs(names=names, exclusive=True))
    batch = Batch(images=torch.zeros(3, 1, SIDE, SIDE), target=ids)
    scores = task.scores(task.statistics(Given(logits), batch))
    pixels, truth = labelled_entries(logits, ids)
    predicted = pixels.argmax(dim=1)
    for number, name in enumerate(names, 1):
        intersection, union = (predicted == number) & (truth == number), (predicted == number) | (truth == number)
        assert scores[f"iou/{name}"] == pytest.approx((intersection.sum() / union.sum()).item())
    assert scores["loss"] == pytest.approx(F.cross_entropy(pixels, truth).item(), rel=1e-5)


def test_batches_without_any_label_do_not_lower_the_validation_loss() -> None:
    logits, ids = case()
    task = make_task(SegmentationSettings(loss={"cross_entropy": 1.0}), Outputs(names=("a", "b", "c"), exclusive=True))

    def statistics(rows: list[int]) -> Tensor:
        return task.statistics(Given(logits[rows]), Batch(images=torch.zeros(len(rows), 1, 1, 1), target=ids[rows]))

    labelled, both = statistics([0]), statistics([0]) + statistics([2])
    assert task.scores(both)["loss"] == task.scores(labelled)["loss"]
    assert np.isnan(task.scores(statistics([2]))["loss"])


FULLY_CONVOLUTIONAL: dict[str, object] = {"name": "fully_convolutional"}
PATCHES: dict[str, object] = {"name": "patchgan", "receptive_field": 16}


def adversarial(discriminator: dict[str, object]) -> tuple[Adversarial, Batch, Tensor]:
    """A task, a batch whose right half has no label in one image and no label at all in another, and logits."""
    settings = AdversarialSettings.model_validate(
        {"loss": {"dice": 1.0}, "adversarial": {"discriminator": discriminator, "lambda1": 0.5}}
    )
    task = make_task(settings, Outputs(names=("a", "b"), exclusive=True))
    assert isinstance(task, Adversarial)
    torch.manual_seed(0)
    task.companions(network_without_parameters())
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 3, (3, 32, 32), generator=generator).byte()
    ids[0, :, 16:], ids[1] = IGNORE, IGNORE
    images = torch.rand(3, 1, 32, 32, generator=generator)
    return task, Batch(images=images, target=ids), torch.randn(3, 3, 32, 32, generator=generator)


@pytest.mark.parametrize("discriminator", [FULLY_CONVOLUTIONAL, PATCHES])
def test_the_discriminator_receives_equal_maps_at_pixels_without_label(discriminator: dict[str, object]) -> None:
    task, batch, logits = adversarial(discriminator)
    received: list[Tensor] = []
    task._discriminator.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    task.discriminator_loss(logits.softmax(dim=1), batch)
    real, fake = (maps.movedim(1, -1) for maps in received)
    ignored = batch.target == IGNORE
    assert torch.equal(real[ignored], fake[ignored])
    assert torch.equal(real[~ignored].argmax(dim=1), batch.target[~ignored].long())
    assert torch.equal(real[~ignored].sum(dim=1), torch.ones(int((~ignored).sum())))


def test_outputs_of_the_discriminator_at_ignored_pixels_have_a_loss_of_0() -> None:
    task, batch, logits = adversarial(FULLY_CONVOLUTIONAL)
    maps, labelled = logits.softmax(dim=1), is_labelled(batch.target).unsqueeze(1)
    truth = torch.where(labelled, one_hot(batch.target, 3).float(), maps)
    real, fake = (task._discriminator(each, batch.images)[labelled] for each in (truth, maps))
    expected = -(F.logsigmoid(real).mean() + F.logsigmoid(-fake).mean()) / 2
    torch.testing.assert_close(task.discriminator_loss(maps, batch), expected)
    torch.testing.assert_close(task.adversarial_loss(maps, batch.images, labelled), -F.logsigmoid(fake).mean())


@pytest.mark.parametrize("discriminator", [FULLY_CONVOLUTIONAL, PATCHES])
def test_no_network_has_a_gradient_at_pixels_without_label(discriminator: dict[str, object]) -> None:
    task, batch, logits = adversarial(discriminator)
    network = Given(logits)
    for _, loss in task.updates(network, batch):
        loss.backward()
    assert network.logits.grad is not None
    gradient, ignored = network.logits.grad.movedim(1, -1), batch.target == IGNORE
    assert not gradient[ignored].any()
    assert gradient[~ignored].any()


@pytest.mark.parametrize("discriminator", [FULLY_CONVOLUTIONAL, PATCHES])
def test_without_labels_no_network_is_trained(discriminator: dict[str, object]) -> None:
    task, batch, logits = adversarial(discriminator)
    unlabelled = Batch(images=batch.images, target=torch.full_like(batch.target, IGNORE))
    network = Given(logits)
    for _, loss in task.updates(network, unlabelled):
        loss.backward()
        assert loss.item() == 0
    gradients = [parameter.grad for module in (network, task._discriminator) for parameter in module.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
