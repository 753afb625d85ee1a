"""Pixels and classes of overlapping masks that are not annotated count in no loss, validation score or statistic."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.counts import IGNORE
from models.losses.distances import signed_distances
from models.losses.functions import losses, weighted_sum
from models.settings import AdversarialSettings, LossName, SegmentationSettings, losses_of
from models.tasks import make_task
from models.tasks.adversarial import Adversarial
from models.tasks.base import Batch, Outputs
from tests.support.networks import network_without_parameters
from tests.support.workers import together

NAMES = ("a", "b", "c")
EXCLUSIVE = ("cross_entropy", "boundary_cross_entropy")
OVERLAPPING: tuple[LossName, ...] = tuple(name for name in losses_of["mask"] if name not in EXCLUSIVE)
SPATIAL = ("cldice", "boundary")
SIDE = 16
WEIGHTS = torch.tensor([0.5, 2.0, 1.0])


def case() -> tuple[Tensor, Tensor]:
    """Logits and masks: class c is annotated in no image, b not in the second one, a without some rows of the first."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, SIDE, SIDE, generator=generator) * 3
    masks = torch.randint(0, 2, (2, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    masks[0, 0, 2:5], masks[1, 1], masks[:, 2] = IGNORE, IGNORE, IGNORE
    return logits, masks


def expected_loss(name: str, logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Return the loss by its formula from the annotated pixels of each annotated class."""
    total, norm = torch.zeros((), dtype=torch.float64), 0.0
    for number in range(3):
        known = masks[:, number] != IGNORE
        if not known.any():
            continue
        p, t = logits[:, number][known].double().sigmoid(), masks[:, number][known].double()
        intersection, predicted, actual, weight = (p * t).sum(), p.sum(), t.sum(), float(weights[number])
        errors = 0.3 * (predicted - intersection) + 0.7 * (actual - intersection)
        at_truth = torch.where(t == 1, p, 1 - p)
        match name:
            case "binary_cross_entropy":
                total, norm = total - weight * at_truth.log().sum(), norm + weight * len(p)
                continue
            case "focal":
                cost = -((1 - at_truth) ** 2) * at_truth.log()
                total, norm = total + weight * cost.sum(), norm + weight * len(p)
                continue
            case "dice":
                value = 1 - (2 * intersection + 1) / (predicted + actual + 1)
            case "log_dice":
                value = -((2 * intersection + 1) / (predicted + actual + 1)).log()
            case "jaccard":
                value = 1 - (intersection + 1) / (predicted + actual - intersection + 1)
            case "tversky":
                value = 1 - (intersection + 1) / (intersection + errors + 1)
            case "focal_tversky":
                value = (1 - (intersection + 1) / (intersection + errors + 1)) ** 0.75
            case _:
                raise AssertionError(name)
        total, norm = total + weight * value, norm + weight
    return total / norm


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", [name for name in OVERLAPPING if name not in SPATIAL])
def test_a_loss_is_that_of_the_annotated_pixels_and_classes(name: LossName, weights: Tensor | None) -> None:
    logits, masks = case()
    logits.requires_grad_()
    loss = losses[name](logits, masks, class_weights=weights)
    loss.backward()
    expected = expected_loss(name, logits.detach(), masks, torch.ones(3) if weights is None else weights)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logits.grad is not None
    assert not logits.grad[masks == IGNORE].any()
    assert logits.grad[masks != IGNORE].all()


@pytest.mark.parametrize("name", OVERLAPPING)
def test_predictions_at_unannotated_pixels_do_not_change_the_loss(name: LossName) -> None:
    logits, masks = case()
    results = []
    for values in (logits, torch.where(masks == IGNORE, 50 * torch.randn_like(logits), logits)):
        values.requires_grad_()
        loss = losses[name](values, masks)
        loss.backward()
        assert values.grad is not None
        assert not values.grad[masks == IGNORE].any()
        results.append((loss.detach(), values.grad))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@pytest.mark.parametrize("name", OVERLAPPING)
def test_the_loss_of_an_unannotated_class_is_that_without_the_class(name: LossName) -> None:
    logits, masks = case()
    values = losses[name](logits, masks), losses[name](logits[:, :2], masks[:, :2])
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_absent_and_unannotated_classes_have_different_losses(name: LossName) -> None:
    logits, masks = case()
    logits.requires_grad_()
    absent = torch.where(masks == IGNORE, 0, masks)
    loss = losses[name](logits, absent)
    loss.backward()
    assert logits.grad is not None
    assert loss != losses[name](logits, masks)
    if name != "boundary":  # a class without a boundary has no distances
        assert logits.grad[:, 2].any()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_batch_without_annotation_has_a_loss_of_0(name: LossName, weights: Tensor | None) -> None:
    logits, masks = case()
    logits.requires_grad_()
    loss = losses[name](logits, torch.full_like(masks, IGNORE), class_weights=weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", OVERLAPPING)
def test_integer_and_float_masks_have_the_same_loss_if_all_is_annotated(name: LossName, weights: Tensor | None) -> None:
    logits, masks = case()
    masks = masks % 2
    losses_of_types = [losses[name](logits, target, class_weights=weights) for target in (masks, masks.float())]
    assert torch.equal(*losses_of_types)


def plain_dice(logits: Tensor, masks: Tensor) -> Tensor:
    p, truth = logits.sigmoid(), masks.float()
    intersection, predicted, actual = (part.sum([0, 2, 3]) for part in (p * truth, p, truth))
    return (1 - (2 * intersection + 1) / (predicted + actual + 1)).mean()


def plain_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    cost = F.binary_cross_entropy_with_logits(logits, masks.float(), reduction="none")
    return cost.sum() / torch.ones_like(cost).sum()


def plain_boundary(logits: Tensor, masks: Tensor) -> Tensor:
    cost = logits.sigmoid() * signed_distances(masks.bool())
    return cost.sum() / torch.ones_like(cost).sum()


PLAIN: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "dice": plain_dice, "binary_cross_entropy": plain_cross_entropy, "boundary": plain_boundary,
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_if_all_is_annotated_the_loss_is_bitwise_that_of_plain_formulas(name: LossName) -> None:
    logits, masks = case()
    masks = masks % 2
    results = []
    for function in (losses[name], PLAIN[name]):
        values = logits.clone().requires_grad_()
        loss = function(values, masks)
        loss.backward()
        assert values.grad is not None
        results.append((loss.detach(), values.grad))
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_label_smoothing_excludes_unannotated_pixels() -> None:
    logits, masks = case()
    logits.requires_grad_()
    loss = weighted_sum({"binary_cross_entropy": 1.0}, logits, masks, label_smoothing=0.2)
    loss.backward()
    known = masks != IGNORE
    smoothed = masks[known].double() * 0.8 + 0.1
    expected = F.binary_cross_entropy_with_logits(logits.detach()[known].double(), smoothed)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert logits.grad is not None
    assert not logits.grad[~known].any()


def shared_losses(rank: int, world: int) -> dict[str, tuple[Tensor, Tensor]]:
    logits, masks = case()
    results = {}
    for name in OVERLAPPING:
        share = logits[rank : rank + 1].clone().requires_grad_()
        loss = losses[name](share, masks[rank : rank + 1])
        loss.backward()
        assert share.grad is not None
        results[name] = (loss.detach(), share.grad)
    return results


def test_a_class_annotated_for_another_worker_is_not_excluded() -> None:
    ranks: list[Any] = together(2, shared_losses)
    logits, masks = case()
    for name in OVERLAPPING:
        single = logits.clone().requires_grad_()
        loss = losses[name](single, masks)
        loss.backward()
        assert single.grad is not None
        for rank in range(2):
            shared, gradient = ranks[rank][name]
            torch.testing.assert_close(shared, loss.detach())
            torch.testing.assert_close(gradient, single.grad[rank : rank + 1])


class Given(nn.Module):
    """A network with given outputs, for several levels of deep supervision with multiples of them."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, _: Tensor, *, deep: bool = False) -> Tensor | list[Tensor]:
        return [self.logits, self.logits / 2] if deep else self.logits


def test_all_levels_of_deep_supervision_have_no_gradient_at_unannotated_pixels() -> None:
    logits, masks = case()
    settings = SegmentationSettings(loss={"dice": 1.0, "binary_cross_entropy": 1.0}, deep_supervision=True)
    task, network = make_task(settings, Outputs(names=NAMES)), Given(logits)
    task.loss(network, Batch(images=torch.zeros(2, 1, 1, 1), target=masks)).backward()
    assert network.logits.grad is not None
    assert not network.logits.grad[masks == IGNORE].any()
    assert network.logits.grad[masks != IGNORE].all()


def test_validation_scores_are_those_of_the_annotated_pixels() -> None:
    logits, masks = case()
    task = make_task(SegmentationSettings(loss={"binary_cross_entropy": 1.0}), Outputs(names=NAMES))
    scores = task.scores(task.statistics(Given(logits), Batch(images=torch.zeros(2, 1, 1, 1), target=masks)))
    ious = []
    for number, name in enumerate(NAMES[:2]):
        known = masks[:, number] != IGNORE
        predicted, truth = logits[:, number][known] >= 0, masks[:, number][known] == 1
        ious.append(((predicted & truth).sum() / (predicted | truth).sum()).item())
        assert scores[f"iou/{name}"] == pytest.approx(ious[-1])
    assert scores["iou/c"] != scores["iou/c"]
    assert scores["mean_iou"] == pytest.approx(sum(ious) / 2)


DISCRIMINATORS: list[dict[str, object]] = [
    {"name": "fully_convolutional"}, {"name": "patchgan", "receptive_field": 16},
]  # fmt: skip


def adversarial(discriminator: dict[str, object]) -> tuple[Adversarial, Batch, Tensor]:
    """A task, a batch in whose images different classes are annotated, and logits."""
    settings = AdversarialSettings.model_validate(
        {"loss": {"dice": 1.0}, "adversarial": {"discriminator": discriminator, "lambda1": 0.5}}
    )
    task = make_task(settings, Outputs(names=NAMES))
    assert isinstance(task, Adversarial)
    torch.manual_seed(0)
    task.companions(network_without_parameters())
    generator = torch.Generator().manual_seed(5)
    masks = torch.randint(0, 2, (3, 3, 32, 32), generator=generator).byte()
    masks[0, 0, :, 16:], masks[1], masks[:, 2] = IGNORE, IGNORE, IGNORE
    images = torch.rand(3, 1, 32, 32, generator=generator)
    return task, Batch(images=images, target=masks), torch.randn(3, 3, 32, 32, generator=generator)


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_the_discriminator_receives_equal_maps_of_unannotated_classes(discriminator: dict[str, object]) -> None:
    task, batch, logits = adversarial(discriminator)
    received: list[Tensor] = []
    task._discriminator.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    task.discriminator_loss(logits.sigmoid(), batch)
    real, fake = received
    ignored = batch.target == IGNORE
    assert torch.equal(real[ignored], fake[ignored])
    assert torch.equal(real[~ignored], batch.target[~ignored].float())


def test_the_discriminator_is_weighted_by_the_annotated_share_of_classes() -> None:
    task, batch, logits = adversarial(DISCRIMINATORS[0])
    maps, labelled = logits.sigmoid(), batch.target != IGNORE
    share = labelled.double().mean(dim=1, keepdim=True)
    real, fake = (
        task._discriminator(each, batch.images).double()
        for each in (torch.where(labelled, batch.target.float(), maps), maps)
    )
    expected = -((F.logsigmoid(real) * share).sum() + (F.logsigmoid(-fake) * share).sum()) / share.sum() / 2
    torch.testing.assert_close(task.discriminator_loss(maps, batch), expected.float())


@pytest.mark.parametrize("discriminator", DISCRIMINATORS)
def test_no_update_has_a_gradient_of_an_unannotated_class(discriminator: dict[str, object]) -> None:
    task, batch, logits = adversarial(discriminator)
    network = Given(logits)
    for _, loss in task.updates(network, batch):
        loss.backward()
    assert network.logits.grad is not None
    assert not network.logits.grad[batch.target == IGNORE].any()
    assert network.logits.grad[batch.target != IGNORE].any()


def test_the_discriminator_is_unchanged_for_masks_without_unannotated_pixels() -> None:
    task, batch, logits = adversarial(DISCRIMINATORS[1])
    masks = batch.target % 2
    maps = logits.sigmoid()
    real, fake = (task._discriminator(each, batch.images) for each in (masks.float(), maps))
    ones = torch.ones_like(real)
    expected = sum(
        F.binary_cross_entropy_with_logits(scores, ones * truth, reduction="none").sum() / ones.sum()
        for scores, truth in ((real, 1.0), (fake, 0.0))
    )
    loss = task.discriminator_loss(maps, Batch(images=batch.images, target=masks))
    assert torch.equal(loss, torch.as_tensor(expected) / 2)
