"""Signed distances to the boundaries of masks, for the boundary loss (Kervadec et al. 2019)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def signed_distances(masks: Tensor) -> Tensor:
    """Return the distance of each pixel to the boundary of its mask, in pixels, negative inside.

    Args:
        masks: (N, C, H, W) bool.

    Returns:
        float32 of the same shape and device; 0 for masks that are empty or full, which have no boundary. Pixels on
        either side of the boundary have the distances 0 (inside) and 1 (outside), as in the paper's code.
    """
    planes = masks.flatten(0, 1).cpu().numpy()
    distances = np.stack([_signed(plane) for plane in planes])
    return torch.from_numpy(distances).view(masks.shape).to(masks.device)


def _signed(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    if not mask.any() or mask.all():
        return np.zeros(mask.shape, np.float32)
    outside, inside = ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask)
    return np.asarray(outside - np.maximum(inside - 1, 0), np.float32)
