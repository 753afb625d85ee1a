"""Images that a network can learn: a bright ellipse on noise, and its position."""

import numpy as np

from datasets.source import Pixels


def blob(seed: int, *, width: int, height: int, visible: bool = True) -> tuple[Pixels, Pixels]:
    """Return (height, width) grey noise with a bright ellipse, and its mask of 0/1; without one all 0."""
    draw = np.random.default_rng(seed)
    across, down = draw.uniform(0.12, 0.25, 2) * (width, height)
    x, y = draw.uniform(across, width - across), draw.uniform(down, height - down)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    mask = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 < 1
    image = draw.normal(70, 15, (height, width)) + 110 * (mask & visible)
    return np.clip(image, 0, 255).astype(np.uint8), (mask & visible).astype(np.uint8)


def column_runs(mask: Pixels) -> list[tuple[int, int]]:
    """Start (from 0) and length of each run of foreground down the columns."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(order="F").astype(np.int8), 1)))
    return [(int(start), int(end - start)) for start, end in edges.reshape(-1, 2)]


def bounds(mask: Pixels) -> tuple[int, int, int, int]:
    """Return x, y, width and height of the foreground."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
