"""Weak labels teach a network the masks of a few images, labels of whole images together with one mask."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.source import Pixels
from datasets.weak.areas import class_areas
from datasets.weak.boxes import mask_boxes
from datasets.weak.discs import point_discs
from datasets.weak.points import mask_points
from datasets.weak.scribbles import mask_scribbles
from models.losses.functions import binary_cross_entropy
from models.task_settings.weak_labels import WeakLabelSettings
from models.tasks import make_task
from models.tasks.base import Outputs, WeakTarget
from models.tasks.weak_labels.task import WeakSegmentation

IMAGES, SIDE, UPDATES = 8, 32, 80
NAMES = ("disc",)


def masks() -> Pixels:
    """Return masks (images, 1, height, width) of a disc; the last two images have none."""
    random, (rows, columns) = np.random.default_rng(0), np.ogrid[:SIDE, :SIDE]
    places = zip(*random.integers(10, 22, (2, IMAGES)), random.integers(5, 9, IMAGES), strict=True)
    discs = [(rows - row) ** 2 + (columns - column) ** 2 < radius**2 for row, column, radius in places]
    drawn = np.stack(discs)[:, None].astype(np.uint8)
    drawn[-2:] = 0
    return drawn


def labels_of(rest: str, drawn: Pixels) -> WeakTarget:
    present = torch.from_numpy(drawn.any(axis=(2, 3)).astype(np.float32))
    areas = torch.from_numpy(class_areas(drawn.__getitem__, range(IMAGES), NAMES))
    if rest == "class":
        return WeakTarget(present=present, areas=areas)
    if rest == "scribble":
        scribbles = [mask_scribbles(mask, NAMES, (0, row)) for row, mask in enumerate(drawn)]
        return WeakTarget(masks=torch.from_numpy(np.stack(scribbles)))
    if rest == "points":
        discs = [
            point_discs(
                [(point.name, np.array([point.x, point.y])) for point in mask_points(mask, NAMES, (0, row))],
                NAMES, (SIDE, SIDE), radius=2, overlapping=True,
            )
            for row, mask in enumerate(drawn)
        ]  # fmt: skip
        return WeakTarget(masks=torch.from_numpy(np.stack(discs)), present=present.where(present == 1, torch.nan),
                          areas=areas)  # fmt: skip
    boxes = torch.full((IMAGES, 1, 4, 2), torch.nan)
    for row, mask in enumerate(drawn):
        for box in mask_boxes(mask, NAMES):
            right, bottom = box.x + box.width, box.y + box.height
            corners = [[box.x, box.y], [right, box.y], [right, bottom], [box.x, bottom]]
            boxes[row, 0] = torch.tensor(corners) / SIDE
    return WeakTarget(present=present, boxes=boxes, box_classes=torch.zeros(IMAGES, 1, dtype=torch.int64))


def dice_after(rest: str) -> float:
    """Return the Dice of the predictions after training on weak labels."""
    drawn = masks()
    random = torch.Generator().manual_seed(0)
    images = 0.6 * torch.from_numpy(drawn).float() + 0.15 * torch.randn(drawn.shape, generator=random)
    task = make_task(WeakLabelSettings.model_validate({"rest": rest}), Outputs(names=NAMES))
    assert isinstance(task, WeakSegmentation)
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 1, 1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    target = labels_of(rest, drawn)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        loss = task.weak_loss(network(images), target)
        if rest == "class":
            loss = loss + binary_cross_entropy(network(images[:1]), torch.from_numpy(drawn[:1]))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted: Tensor = network(images) > 0
    truth = torch.from_numpy(drawn) == 1
    return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))


@pytest.mark.parametrize("rest", ["box", "points", "scribble", "class"])
def test_a_network_learns_the_masks_of_eight_images(rest: str) -> None:
    assert dice_after(rest) > 0.85
