"""Test-time augmentation: mean probabilities over mirrored and turned views of the inputs."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final, NamedTuple

import torch
from torch import Tensor

from models.network import Network
from models.tasks.segmentation import Segmentation
from study.config.evaluation import TtaName


class View(NamedTuple):
    """A mirrored (left to right) and then turned image; `turns` counts quarter turns counterclockwise."""

    mirrored: bool
    turns: int

    def of(self, images: Tensor) -> Tensor:
        """Return the view of images (..., H, W)."""
        return torch.rot90(images.flip(-1) if self.mirrored else images, self.turns, (-2, -1))

    def undo(self, maps: Tensor) -> Tensor:
        """Return maps (..., H, W) of this view in the orientation of the image."""
        turned = torch.rot90(maps, -self.turns, (-2, -1))
        return turned.flip(-1) if self.mirrored else turned


ORIGINAL: Final = (View(mirrored=False, turns=0),)


def views_of(tta: Iterable[TtaName]) -> tuple[View, ...]:
    """Return the different views that combine these transforms, the image itself first."""
    names = set(tta)
    flips, vertical_flips = ([False, True] if name in names else [False] for name in ("flip", "vertical_flip"))
    turns = range(4 if "rotate" in names else 1)
    # A vertical flip is a horizontal one and a half turn.
    return tuple(
        dict.fromkeys(
            View(mirrored=flip != vertical, turns=(turn + 2 * vertical) % 4)
            for flip, vertical, turn in product(flips, vertical_flips, turns)
        )
    )


@torch.no_grad()
def mean_probabilities(
    networks: Sequence[Network], task: Segmentation, images: Tensor, views: Sequence[Sequence[View]]
) -> Tensor:
    """Return the mean over networks of their mean probabilities (N, channels, H, W) over views.

    Args:
        networks: Networks in evaluation mode.
        task: Their task.
        images: Inputs (N, C, H, W), square if a view is turned by 90 or 270 degrees.
        views: The views of each image, for each network.
    """
    means = (
        _mean(view.undo(task.probabilities(network(view.of(images)).float())) for view in chosen)
        for network, chosen in zip(networks, views, strict=True)
    )
    return _mean(means)


def _mean(parts: Iterable[Tensor]) -> Tensor:
    """Return the mean of tensors, of which only one at a time is in memory."""
    total: Tensor | None = None
    count = 0
    for part in parts:
        total = part if total is None else total + part
        count += 1
    assert total is not None, "there is at least one"
    return total if count == 1 else total / count
