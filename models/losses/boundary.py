"""Weights of pixels between adjacent regions (Ronneberger et al. 2015, equation 2)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from models.counts import IGNORE

PEAK = 10.0
"""w0 of the paper."""
SIGMA = 5.0
"""Pixels."""
REACH = 45
"""Maximum distance to a region in pixels; beyond it the weight is below 1e-16 of the peak."""


def boundary_weights(ids: Tensor) -> Tensor:
    """Return w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of class ids (N, H, W), float32 of the same shape and device.

    d1 and d2 are the distances in pixels to the nearest and second nearest region; within a region d1 is 0. A
    region is a connected component (by edges) of one foreground class. With fewer than two regions the weight
    is 0, as it is at unlabelled pixels, which form no region.
    """
    weights = np.stack([_weights(image) for image in ids.cpu().numpy()])
    return torch.from_numpy(weights).to(ids.device)


def _weights(ids: NDArray[np.integer]) -> NDArray[np.float32]:
    first, second = np.full((2, *ids.shape), np.inf)
    for value in np.unique(ids[(ids > 0) & (ids != IGNORE)]):
        regions, _ = ndimage.label(ids == value)
        for number, box in enumerate(ndimage.find_objects(regions), start=1):
            window = tuple(slice(max(side.start - REACH, 0), side.stop + REACH) for side in box)
            distance = ndimage.distance_transform_edt(regions[window] != number)
            near, next_ = first[window], second[window]
            second[window] = np.minimum(next_, np.maximum(near, distance))
            first[window] = np.minimum(near, distance)
    weights: NDArray[np.float32] = (PEAK * np.exp(-((first + second) ** 2) / (2 * SIGMA**2))).astype(np.float32)
    weights[ids == IGNORE] = 0
    return weights
