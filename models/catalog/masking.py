"""Backbones that can process a part of their patches. Used by planning, so it does not import torch."""

import math
import re

from models.catalog.registry import backbone, backbones, size_text
from models.encoders.patches import patch_grid

_OTHER = re.compile(r"rope|eva02|eva_giant|dinov3|sapiens|lingbot|_pe_|vitamin|resnet\d|_r\d*_|_mci_")
"""Plain transformers whose images may have any size, but which do not only add a position embedding to independent
patches: rotary embeddings, and convolutions before the patches."""


def hides_patches(name: str) -> bool:
    """Return whether a backbone is a plain vision transformer whose patches can be left out.

    It embeds each patch independently and adds a position embedding, so that visible patches need no others.
    """
    if name not in backbones():
        return False
    row = backbone(name)
    return row.features == "plain" and row.size is None and _OTHER.search(name) is None


def masking_problem(name: str, shape: tuple[int, int]) -> str | None:
    """Return an error message if patches of a backbone cannot be hidden in images of this height and width."""
    if not hides_patches(name):
        return (
            f"method is mae with the backbone {name}; allowed: plain vision transformers with a position embedding "
            "such as tu-vit_small_patch16_224; choose one of these, or method: simmim"
        )
    patch = backbone(name).strides[-1]
    if math.prod(patch_grid(shape, patch)) == 1:
        size = size_text(shape)
        return f"image size is {size} for patches of {patch} pixels; allowed: two patches or more; raise image.size"
    return None
