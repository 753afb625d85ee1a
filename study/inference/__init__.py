"""Trained networks on images: prediction and export."""

MIN_SIDE, MAX_SIDE = 16, 16_384
"""Limits of `--size` and `--tile` of `study predict`, in pixels."""
