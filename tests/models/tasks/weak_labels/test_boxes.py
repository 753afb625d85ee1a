"""Losses of boxes against loops in NumPy, upright and turned."""

import math
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.path import Path
from numpy.typing import NDArray
from torch import Tensor

from models.tasks.weak_labels.boxes import LINES, outside_masks, projection_loss

HEIGHT, WIDTH = 24, 32
NAN = float("nan")


def upright(x: float, y: float, width: float, height: float) -> Tensor:
    """Return the corners of a box as fractions of the image."""
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return torch.tensor(corners) / torch.tensor([WIDTH, HEIGHT])


def turned(x: float, y: float, width: float, height: float, degrees: float) -> Tensor:
    """Return the corners of a box that is turned about its centre."""
    pixels = upright(x, y, width, height) * torch.tensor([WIDTH, HEIGHT])
    centre, angle = pixels.mean(dim=0), math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return ((pixels - centre) @ turn + centre) / torch.tensor([WIDTH, HEIGHT])


NOTHING = torch.full((4, 2), NAN)
BOXES = torch.stack(
    [
        torch.stack([upright(4, 3, 10, 8), turned(12, 6, 14, 7, 30)]),
        torch.stack([turned(10, 5, 9, 12, 200), NOTHING]),
        torch.stack([upright(20, 10, 20, 5), upright(2, 2, 6, 6).flip(0)]),
    ]
)
CLASSES = torch.tensor([[0, 1], [1, 0], [0, 0]])
SHAPE = torch.Size((3, 2, HEIGHT, WIDTH))


def random_logits() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def test_pixels_outside_of_all_boxes_of_a_class_are_annotated() -> None:
    present = torch.tensor([[1, 1], [0, 1], [1, NAN]])
    masks = outside_masks(BOXES, CLASSES, present, SHAPE).numpy()
    for image, label in np.ndindex(3, 2):
        polygons = [
            BOXES[image, box].double().numpy() * [WIDTH, HEIGHT]
            for box in range(2)
            if CLASSES[image, box] == label and not BOXES[image, box].isnan().any()
        ]
        for row, column in np.ndindex(HEIGHT, WIDTH):
            distance = min((distance_to(polygon, column + 0.5, row + 0.5) for polygon in polygons), default=9.0)
            if 0.49 < distance < 0.8:
                continue  # at a corner the sides are shifted, not rounded
            known = not present[image, label].isnan() and distance > 0.5
            assert masks[image, label, row, column] == (0 if known else 255)


def distance_to(polygon: NDArray[np.float64], x: float, y: float) -> float:
    """Return the distance of a point from a polygon in pixels, 0 inside of it."""
    if Path(polygon).contains_point((x, y)):
        return 0.0
    steps = np.roll(polygon, -1, axis=0) - polygon
    share = (((x, y) - polygon) * steps).sum(axis=1) / (steps**2).sum(axis=1)
    nearest = polygon + np.clip(share, 0, 1)[:, None] * steps
    return float(np.hypot(*((x, y) - nearest).T).min())


def projected(probabilities: NDArray[np.float64], corners: NDArray[np.float64]) -> list[float]:
    """Return the Dice loss of the projections onto both sides of a box, whose corners are fractions of the image."""
    share = (np.arange(LINES) + 0.5) / LINES
    samples, visible = np.zeros((2, LINES, LINES))
    for (i, v), (j, u) in product(enumerate(share), repeat=2):
        point = (
            (1 - u) * (1 - v) * corners[0] + u * (1 - v) * corners[1] + u * v * corners[2] + (1 - u) * v * corners[3]
        )
        samples[i, j] = float(
            F.grid_sample(
                torch.from_numpy(probabilities)[None, None], torch.from_numpy(2 * point - 1).view(1, 1, 1, 2),
                padding_mode="border", align_corners=False,
            )
        )  # fmt: skip
        visible[i, j] = ((point >= 0) & (point <= 1)).all()
    losses = []
    for axis in (0, 1):
        lines = visible.all(axis=axis)
        largest = samples.max(axis=axis)[lines]
        if lines.any():
            losses.append(1 - 2 * largest.sum() / ((largest**2).sum() + lines.sum()))
    return losses


def test_the_loss_inside_is_the_dice_loss_of_projections() -> None:
    logits = random_logits()
    probabilities = logits.sigmoid().double().numpy()
    losses = [
        loss
        for image, box in np.ndindex(3, 2)
        if not BOXES[image, box].isnan().any()
        for loss in projected(probabilities[image, CLASSES[image, box]], BOXES[image, box].double().numpy())
    ]
    assert len(losses) == 9  # the first box of the last image leaves it: no line along it is whole
    assert projection_loss(logits, BOXES, CLASSES).item() == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("degrees", [0, 20, 75])
def test_an_object_that_touches_all_sides_of_its_box_has_no_loss(degrees: float) -> None:
    """The object is the whole box: each line crosses it."""
    box = turned(8, 6, 14, 10, degrees)
    filled = outside_masks(box[None, None], torch.tensor([[0]]), torch.ones(1, 1), torch.Size((1, 1, HEIGHT, WIDTH)))
    logits = torch.where(filled == 255, 12.0, -12.0)
    assert projection_loss(logits, box[None, None], torch.tensor([[0]])).item() < 1e-3
    half = logits.clone()
    half[..., : HEIGHT // 2, :] = -12.0
    assert projection_loss(half, box[None, None], torch.tensor([[0]])).item() > 0.05


def test_gradients_are_those_of_bilinear_sampling() -> None:
    logits = random_logits().requires_grad_()
    projection_loss(logits, BOXES, CLASSES).backward()
    again = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: projection_loss(values, BOXES.double(), CLASSES), (again,), eps=1e-6, atol=1e-4, nondet_tol=0.0,
        fast_mode=True,
    )  # fmt: skip
    assert logits.grad is not None
    assert not logits.grad[1, 0].any()  # no box of this class
    assert not logits.grad[2, 1].any()


def test_without_boxes_the_loss_is_0_and_has_no_gradient() -> None:
    logits = random_logits().requires_grad_()
    loss = projection_loss(logits, torch.full_like(BOXES, NAN), CLASSES)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()
