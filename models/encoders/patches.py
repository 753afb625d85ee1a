"""Patches of plain vision transformers. Used by planning, so it does not import torch."""


def whole_patches(side: int, patch: int) -> int:
    """Return the side in pixels to which images are resized: the nearest multiple of the patch."""
    return max(1, round(int(side) / patch)) * patch


def patch_grid(shape: tuple[int, int], patch: int) -> tuple[int, int]:
    """Return rows and columns of the patches of images of this height and width, after they are resized."""
    height, width = shape
    return whole_patches(height, patch) // patch, whole_patches(width, patch) // patch
