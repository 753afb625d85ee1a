"""The task with weak labels: what adds to the loss of masks, and which pixels and images do not."""

import math

import pytest
import torch
from torch import Tensor

from models.losses.functions import binary_cross_entropy, cross_entropy, dice
from models.settings import LossWeights
from models.task_settings.weak_labels import WeakKind, WeakLabelBlock, WeakLabelSettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs, WeakTarget
from models.tasks.segmentation import Segmentation
from models.tasks.weak_labels.losses import absent_masks, class_logits, presence_loss, size_penalty
from models.tasks.weak_labels.task import WeakSegmentation
from tests.support.consistency import CLASSES, IMAGES, SIDE, network

NAN = float("nan")
LOSS: LossWeights = {"cross_entropy": 0.5, "dice": 1.0}
AREAS = torch.tensor([[0.01, 0.05], [0.8, 0.9]])


def task(rest: str = "scribble", *, loss: LossWeights = LOSS, **changes: object) -> WeakSegmentation:
    """Return a task of two exclusive classes."""
    settings = WeakLabelSettings.model_validate({"rest": rest, "loss": loss, **changes})
    made = make_task(settings, Outputs(names=("a", "b"), exclusive=True))
    assert isinstance(made, WeakSegmentation)
    return made


def batch(weak: WeakTarget | None, *, update: int = 0, updates: int = 0) -> Batch:
    """Return images with masks, and others if there are weak labels."""
    generator = torch.Generator().manual_seed(3)
    images, others = torch.rand(2, IMAGES, 1, SIDE, SIDE, generator=generator)
    target = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=generator).byte()
    unlabelled = None if weak is None else others
    return Batch(images=images, target=target, unlabelled=unlabelled, weak=weak, update=update, updates=updates)


def scribbled() -> Tensor:
    """Return masks with some annotated pixels."""
    generator = torch.Generator().manual_seed(4)
    masks = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=generator).byte()
    masks[torch.rand(masks.shape, generator=generator) > 0.2] = 255
    return masks


PRESENT = torch.tensor([[1, 0], [NAN, NAN], [0, NAN], [1, 1]])


def test_without_weak_labels_the_task_is_segmentation() -> None:
    assert type(make_task(WeakLabelSettings(), Outputs(names=("a",)))) is Segmentation


def test_scribbles_have_the_losses_of_the_stage_at_their_pixels() -> None:
    made, given = task(weak={"weight": 0.7}), batch(WeakTarget(masks=scribbled()))
    first, again = network(), network()
    masks = 0.5 * cross_entropy(first(given.images), given.target) + dice(
        first(given.images), given.target, exclusive=True
    )
    assert given.unlabelled is not None
    logits = first(given.unlabelled)
    weak = 0.5 * cross_entropy(logits, scribbled()) + dice(logits, scribbled(), exclusive=True)
    torch.testing.assert_close(made.loss(again, given), masks + 0.7 * weak)


def test_pixels_outside_of_scribbles_have_no_gradient() -> None:
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE, requires_grad=True)
    task().weak_loss(logits, WeakTarget(masks=scribbled())).backward()
    assert logits.grad is not None
    touched = logits.grad.abs().amax(dim=1) > 0
    assert torch.equal(touched, scribbled() != 255)


ANY_LOSS: list[LossWeights] = [LOSS, {"dice": 1.0}, {"tversky": 1.0}, {"boundary_cross_entropy": 2.0}, {"cldice": 1.0}]


@pytest.mark.parametrize("loss", ANY_LOSS)
def test_labels_of_images_have_the_cross_entropy_of_absent_classes_a_maximum_and_an_area(loss: LossWeights) -> None:
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE)
    scores = class_logits(logits, exclusive=True)
    expected = (
        binary_cross_entropy(scores, absent_masks(PRESENT, scores.shape))
        + presence_loss(scores, PRESENT)
        + 0.1 * size_penalty(scores, PRESENT, AREAS)
    )
    made = task("class", loss=loss)
    torch.testing.assert_close(made.weak_loss(logits, WeakTarget(present=PRESENT, areas=AREAS)), expected)


BOX = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]])
BOX_CLASSES = torch.zeros(1, 1, dtype=torch.int64)
ABSENT: dict[str, tuple[WeakTarget, int]] = {
    "class": (WeakTarget(present=torch.tensor([[0.0, NAN]])), SIDE**2),
    "box": (
        WeakTarget(present=torch.tensor([[1.0, NAN]]), boxes=BOX[None], box_classes=BOX_CLASSES),
        SIDE**2 - (SIDE // 2 + 2) ** 2,
    ),
}
"""Weak labels of one image, with the number of pixels in which the first class is known to be absent."""


@pytest.mark.parametrize("rest", ABSENT)
@pytest.mark.parametrize("loss", ANY_LOSS)
def test_pixels_of_an_absent_class_learn_that_it_is_absent(rest: str, loss: LossWeights) -> None:
    target, count = ABSENT[rest]
    logits = torch.zeros(1, CLASSES, SIDE, SIDE, requires_grad=True)
    task(rest, loss=loss).weak_loss(logits, target).backward()
    assert logits.grad is not None
    slope = logits.grad[0, 1, 0]  # a row outside of the box
    # The class has the probability 1/3, whose logit falls with that of its channel.
    torch.testing.assert_close(slope, torch.full_like(slope, 1 / 3 / count))


def test_points_have_the_losses_of_their_discs_and_an_area() -> None:
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE)
    scores = class_logits(logits, exclusive=True)
    expected = task().weak_loss(logits, WeakTarget(masks=scribbled())) + 0.1 * size_penalty(scores, PRESENT, AREAS)
    target = WeakTarget(masks=scribbled(), present=PRESENT, areas=AREAS)
    torch.testing.assert_close(task("points").weak_loss(logits, target), expected)


def test_images_whose_classes_are_not_annotated_have_no_gradient() -> None:
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE, requires_grad=True)
    task("class").weak_loss(logits, WeakTarget(present=PRESENT, areas=AREAS)).backward()
    assert logits.grad is not None
    assert logits.grad.flatten(1).any(dim=1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("rest", ["points", "class"])
def test_nothing_annotated_has_loss_0(rest: str) -> None:
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE, requires_grad=True)
    masks = torch.full_like(scribbled(), 255) if rest == "points" else None
    target = WeakTarget(masks=masks, present=torch.full_like(PRESENT, NAN), areas=AREAS)
    loss = task(rest).weak_loss(logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_losses_that_need_complete_masks_apply_to_masks_alone() -> None:
    made = task(loss={"dice": 1.0, "boundary": 0.5, "cldice": 0.5, "cross_entropy": 0.0})
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE)
    expected = dice(logits, scribbled(), exclusive=True)
    torch.testing.assert_close(made.weak_loss(logits, WeakTarget(masks=scribbled())), expected)


def test_annotated_pixels_have_the_cross_entropy_in_place_of_that_of_borders() -> None:
    made = task(loss={"boundary_cross_entropy": 2.0, "cross_entropy": 0.5})
    logits = torch.randn(IMAGES, CLASSES, SIDE, SIDE)
    expected = 2.5 * cross_entropy(logits, scribbled())
    torch.testing.assert_close(made.weak_loss(logits, WeakTarget(masks=scribbled())), expected)


@pytest.mark.parametrize(("rest", "weight"), [("points", 0.2), ("scribble", 0.2), ("box", 1.0), ("class", 1.0)])
def test_the_default_weight_is_that_of_the_kind_of_labels(rest: WeakKind, weight: float) -> None:
    assert WeakLabelBlock().weight_for(rest) == WeakLabelBlock().values_for(rest)["weight"] == weight
    assert WeakLabelBlock(weight=0.7).weight_for(rest) == 0.7


@pytest.mark.parametrize(("update", "share"), [(0, math.exp(-5)), (25, math.exp(-1.25)), (50, 1), (90, 1)])
def test_the_weight_rises_in_the_first_part_of_all_updates(update: int, share: float) -> None:
    made = task(weak={"weight": 2.0, "ramp_up": 0.5})
    given = batch(WeakTarget(masks=scribbled()), update=update, updates=100)
    alone = made.loss(network(), batch(None))
    assert given.unlabelled is not None
    first = network()
    first(given.images)
    weak = made.weak_loss(first(given.unlabelled), WeakTarget(masks=scribbled()))
    torch.testing.assert_close(made.loss(network(), given), alone + 2 * share * weak)
