"""Differentiable skeletons of masks (Shit et al. 2021, algorithm 1)."""

import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 10
"""Structures up to about twice as wide, in pixels, are thinned to lines."""


def soft_skeleton(maps: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return the skeletons of maps (N, C, H, W) of 0..1, of the same shape.

    Repeated erosion; what opening removes at each step is a part of the skeleton.
    """
    skeleton = F.relu(maps - _opened(maps))
    for _ in range(iterations):
        maps = _eroded(maps)
        removed = F.relu(maps - _opened(maps))
        skeleton = skeleton + F.relu(removed - skeleton * removed)
    return skeleton


def _eroded(maps: Tensor) -> Tensor:
    """Return the minimum over the four neighbours and the pixel itself."""
    vertical = -F.max_pool2d(-maps, (3, 1), stride=1, padding=(1, 0))
    horizontal = -F.max_pool2d(-maps, (1, 3), stride=1, padding=(0, 1))
    return vertical.minimum(horizontal)


def _opened(maps: Tensor) -> Tensor:
    return F.max_pool2d(_eroded(maps), 3, stride=1, padding=1)
