"""Losses of labels of whole images, which are means over the images and classes of all workers.

Shapes: logits of classes (N, classes, height, width) without background, whose sigmoid is the probability of a class;
labels (N, classes): 1 for classes that are known to be present, 0 for absent ones, NaN for others.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.counts import IGNORE
from models.losses.functions import ratio

SHARPNESS = 5.0
"""Of the smooth maximum: it is the mean for 0 and the maximum for infinity."""
LOWER, UPPER = 0.9, 1.1
"""Tolerance of areas (Kervadec et al. 2019)."""


def class_logits(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Return the log-odds of each foreground class in float32.

    For exclusive classes, of which the first channel is the background, these are differences to the logarithm of the
    summed exponentials of all other channels.
    """
    scores = logits.float()
    if not exclusive:
        return scores
    channels = range(1, scores.shape[1])
    others = [torch.cat([scores[:, :k], scores[:, k + 1 :]], dim=1).logsumexp(dim=1) for k in channels]
    return scores[:, 1:] - torch.stack(others, dim=1)


def absent_masks(present: Tensor, shape: torch.Size) -> Tensor:
    """Return masks (N, classes, height, width), uint8: 0 in absent classes, otherwise `IGNORE`."""
    planes = torch.where(present == 0, 0, IGNORE).to(torch.uint8)
    return planes[:, :, None, None].expand(shape)


def presence_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Return the binary cross-entropy of the smooth maximum over pixels of the classes that are present.

    The smooth maximum is log(mean(exp(r x))) / r of the logits x (Pinheiro and Collobert 2015).
    """
    pixels = logits.flatten(2)
    maximum = ((SHARPNESS * pixels).logsumexp(dim=2) - math.log(pixels.shape[2])) / SHARPNESS
    counted = (present == 1).float()
    return ratio(F.softplus(-maximum) * counted, counted)


def size_penalty(logits: Tensor, present: Tensor, areas: Tensor) -> Tensor:
    """Return the quadratic penalty of areas outside of their range, after Kervadec et al. (2019).

    The area of a class is the mean of its probability over pixels, its range from 0.9 times the smallest to 1.1 times
    the largest area of the masks. The distance to the nearer end of the range is divided by the sum of the area and
    that end. The penalty thus depends on their ratio alone and is at most 1; the absolute values of its gradient with
    respect to the logits have a sum of at most 0.4, for classes of any size.

    Args:
        logits: Logits of classes.
        present: Labels; classes that are not known to be present have no penalty.
        areas: Smallest and largest area (classes, 2) of the masks, NaN for classes that none of them shows.
    """
    low, high = LOWER * areas[:, 0], UPPER * areas[:, 1]
    counted = ((present == 1) & ~torch.isnan(high)).float()
    low, high = low.nan_to_num(nan=1.0), high.nan_to_num(nan=1.0)
    area = logits.sigmoid().mean(dim=(2, 3))
    outside = F.relu(low - area) / (low + area) + F.relu(area - high) / (area + high)
    return ratio(outside.square() * counted, counted)
