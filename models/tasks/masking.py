"""Random masks of images, determined by keys."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def hidden_cells(keys: Sequence[int], grid: tuple[int, int], ratio: float) -> Tensor:
    """Return a mask (N, rows, columns), bool, with the same number of hidden cells in each image, at least one.

    At least one cell is visible if there are two.

    Args:
        keys: A 64-bit integer for each image; equal keys give equal masks in any process.
        grid: Rows and columns.
        ratio: Share of hidden cells.
    """
    rows, columns = grid
    count = rows * columns
    hidden = max(1, min(round(ratio * count), count - 1))
    masks = np.zeros((len(keys), count), dtype=np.bool_)
    for mask, key in zip(masks, keys, strict=True):
        mask[np.random.Generator(np.random.Philox(key=key)).permutation(count)[:hidden]] = True
    return torch.from_numpy(masks).view(-1, rows, columns)


def visible_numbers(hidden: Tensor) -> Tensor:
    """Return the numbers (N, n) of the visible cells of a mask (N, rows, columns), row by row."""
    return (~hidden).flatten(1).nonzero()[:, 1].view(len(hidden), -1)


def hidden_pixels(hidden: Tensor, side: int, shape: tuple[int, int]) -> Tensor:
    """Return a mask (N, 1, height, width) of the pixels in hidden cells of `side` pixels; the last may be cut off."""
    pixels = hidden.unsqueeze(1).repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)
    return pixels[..., : shape[0], : shape[1]]


def resized_mask(hidden: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a mask (N, 1, H, W) at another height and width; each pixel is that of the nearest one."""
    if hidden.shape[-2:] == shape:
        return hidden
    return interpolate(hidden.float(), shape, mode="nearest-exact").bool()
