"""Losses of boxes: pixels outside of them, and projections of predictions onto their sides.

Boxes are quadrilaterals (N, boxes, 4, 2), as augmentation may turn them: corners (x, y) as fractions of the width and
height of the image, in the order of a walk around the box from its upper left corner; NaN stands for no box. Their
classes (N, boxes) are numbers of channels.
"""

import torch
from torch import Tensor

from models.counts import IGNORE
from models.losses.functions import ratio

LINES = 64
"""Number of lines along each axis of a box, and of samples on a line."""
TOLERANCE = 0.5
"""Pixels whose centres are at most this many pixels outside of a box may belong to its object."""


def outside_masks(boxes: Tensor, classes: Tensor, present: Tensor, shape: torch.Size) -> Tensor:
    """Return masks (N, classes, height, width), uint8: 0 outside of all boxes of a class, otherwise `IGNORE`.

    Args:
        boxes: The boxes.
        classes: Their classes.
        present: Labels (N, classes), NaN for classes that are not annotated, whose masks are `IGNORE`.
        shape: Shape of the masks.
    """
    count, channels, height, width = shape
    inside = torch.zeros(shape, dtype=torch.bool, device=boxes.device)
    numbers = torch.arange(channels, device=boxes.device)
    for box, number in zip(boxes.unbind(1), classes.unbind(1), strict=True):
        is_class = (number[:, None] == numbers).view(count, channels, 1, 1)
        inside |= is_class & _contains(box, height, width)[:, None]
    annotated = ~torch.isnan(present)[:, :, None, None] & ~inside
    return torch.where(annotated, 0, IGNORE).to(torch.uint8)


def projection_loss(logits: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
    """Return the Dice loss of the projections of predictions onto the sides of boxes (Tian et al. 2021).

    A projection is the largest probability on each line across a box, which is 1 for a tight box. Probabilities are
    sampled bilinearly in the frame of the box. Lines that leave the image are left out, as the object may lie beyond.
    The loss is the mean over boxes and both sides.

    Args:
        logits: Logits of classes (N, classes, height, width), whose sigmoid is the probability of a class.
        boxes: The boxes.
        classes: Their classes.
    """
    counted = ~torch.isnan(boxes).any(dim=-1).any(dim=-1)
    images, numbers = counted.nonzero(as_tuple=True)
    corners = boxes[images, numbers]
    points = _grid(corners)
    is_visible = ((points >= 0) & (points <= 1)).all(dim=-1)
    samples = _sampled(logits.sigmoid(), images, classes[images, numbers], points)
    costs, weights = [], []
    for axis in (1, 2):
        projection, lines = samples.amax(dim=axis), is_visible.all(dim=axis).to(samples.dtype)
        overlap, total = (projection * lines).sum(dim=1), ((projection.square() + 1) * lines).sum(dim=1)
        is_counted = lines.any(dim=1).to(samples.dtype)
        costs.append((1 - 2 * overlap / total.clamp_min(1)) * is_counted)
        weights.append(is_counted)
    # The sum over no box keeps the logits in the graph.
    return ratio(torch.stack(costs) + 0 * logits.sum(), torch.stack(weights))


def _contains(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return whether the pixels of images (N, height, width) lie in boxes (N, 4, 2), or `TOLERANCE` outside."""
    corners = boxes * boxes.new_tensor([width, height])
    edges = corners.roll(-1, dims=1) - corners
    x = torch.arange(width, device=boxes.device) + 0.5
    y = (torch.arange(height, device=boxes.device) + 0.5)[:, None]
    start, step = (values[:, :, None, None] for values in (corners, edges))
    cross = step[..., 0] * (y - start[..., 1]) - step[..., 1] * (x - start[..., 0])
    following = edges.roll(-1, dims=1)
    turn = (edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0]).sum(dim=1)
    turn = torch.where(turn < 0, -1.0, 1.0)
    distance = cross * turn[:, None, None, None] / torch.linalg.vector_norm(step, dim=-1).clamp_min(1e-6)
    inside: Tensor = (distance >= -TOLERANCE).all(dim=1)
    return inside


def _grid(corners: Tensor) -> Tensor:
    """Return points (boxes, LINES, LINES, 2) in boxes (boxes, 4, 2): rows along the left side, columns the upper."""
    share = (torch.arange(LINES, device=corners.device, dtype=corners.dtype) + 0.5) / LINES
    across, down = share[None, None, :, None], share[None, :, None, None]
    first, second, third, fourth = (corner[:, None, None] for corner in corners.unbind(1))
    upper, lower = first + across * (second - first), fourth + across * (third - fourth)
    points: Tensor = upper + down * (lower - upper)
    return points


def _sampled(maps: Tensor, images: Tensor, channels: Tensor, points: Tensor) -> Tensor:
    """Return values (boxes, lines, samples) of maps (N, channels, height, width) at points, interpolated bilinearly.

    As `torch.nn.functional.grid_sample` with `padding_mode="border"`, whose gradient is not deterministic on CUDA.
    """
    height, width = maps.shape[2:]
    x = (points[..., 0] * width - 0.5).clamp(0, width - 1)
    y = (points[..., 1] * height - 0.5).clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)
    image, channel = images[:, None, None], channels[:, None, None]
    upper = torch.lerp(maps[image, channel, top, left], maps[image, channel, top, right], x - left)
    lower = torch.lerp(maps[image, channel, bottom, left], maps[image, channel, bottom, right], x - left)
    return torch.lerp(upper, lower, y - top)
