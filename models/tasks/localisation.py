"""Regression of a structure's centre or box by a linear output and squared error (Hu et al.)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.losses.functions import weighted_sum
from models.settings import LocalisationSettings, loss_problem
from models.tasks.base import Batch, Outputs, Task


class Localisation(Task):
    """Target: (N, 2) centre (x, y) or (N, 4) box (x, y, width, height), (x, y) its upper left corner.

    In fractions of width and height of the image, NaN if missing; missing targets are ignored.
    """

    trains = LocalisationSettings.trains
    monitor = "distance"
    minimise = True
    takes_features = True

    def __init__(self, settings: LocalisationSettings, outputs: Outputs) -> None:
        if problem := loss_problem(settings.loss, settings.target, exclusive=False):
            raise ValueError(problem)
        self.settings = settings
        self.outputs = outputs

    def head_channels(self) -> int:
        """Return 2 outputs per image for a centre, 4 for a box."""
        return 2 if self.settings.target == "centre" else 4

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over known coordinates; 0 if a batch has none."""
        return weighted_sum(self.settings.loss, network(batch.inputs), batch.target)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, known images, distance, errors in pixels and, for boxes, intersection over union."""
        output = network(batch.inputs).double()
        known = ~torch.isnan(batch.target).any(dim=1)
        images = known.sum().double()
        truth = torch.where(known.unsqueeze(1), batch.target, 0).double()
        loss = weighted_sum(self.settings.loss, output, torch.where(known.unsqueeze(1), batch.target, torch.nan))
        height, width = batch.images.shape[-2:]
        side = max(height, width)
        scale = output.new_tensor([width / side, height / side]).repeat(output.shape[1] // 2)
        distance = (_distance(output * scale, truth * scale) * known).sum()
        squared = (((output - truth) * scale).square().mean(dim=1) * known).sum()
        parts = [loss.double() * images, images, distance, distance * side, squared * side**2]
        if self.settings.target == "box":
            parts.append((box_iou(output, truth) * known).sum())
        return torch.stack(parts)

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return loss, mean distance of centres in longer sides, errors in pixels and, for boxes, their mean IoU.

        `distance_pixels` and `mse_pixels` (a mean over coordinates) are in pixels of the network's images.
        """
        loss, images, *measures = statistics.tolist()
        names = ("distance", "distance_pixels", "mse_pixels", "mean_iou")[: len(measures)]
        if not images:
            return dict.fromkeys(("loss", *names), math.nan)
        values = {name: value / images for name, value in zip(names, measures, strict=True)}
        return {"loss": loss / images, **values}


def _distance(output: Tensor, truth: Tensor) -> Tensor:
    return (_centre(output) - _centre(truth)).square().sum(dim=1).sqrt()


def _centre(points: Tensor) -> Tensor:
    """Return the centres (N, 2) of points (N, 2) or boxes (N, 4)."""
    return points if points.shape[1] == 2 else points[:, :2] + points[:, 2:] / 2


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union (N,) of boxes (N, 4) x, y, width, height; negative sizes count as 0."""
    size_a, size_b = a[:, 2:].clamp_min(0), b[:, 2:].clamp_min(0)
    upper = torch.maximum(a[:, :2], b[:, :2])
    lower = torch.minimum(a[:, :2] + size_a, b[:, :2] + size_b)
    intersection = (lower - upper).clamp_min(0).prod(dim=1)
    union = size_a.prod(dim=1) + size_b.prod(dim=1) - intersection
    return intersection / union.clamp_min(torch.finfo(union.dtype).tiny)
