"""The layout of `folder` with exclusive classes, on images whose grey values are determined by the class."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.pictures import save


def write_classes_folder(
    root: Path, *, classes: Sequence[str], images: int = 16, side: int = 64, seed: int = 0, categories: int = 3
) -> Path:
    """Write concentric discs, one patient per image; the last image has a separate category."""
    random = np.random.default_rng(seed)
    across, down = np.mgrid[:side, :side]
    cases = []
    for number in range(images):
        x, y = random.uniform(0.35, 0.65, 2) * side
        distance = np.hypot(across - x, down - y)
        ids = sum((distance < side * 0.35 * (1 - step / len(classes))).astype(np.uint8) for step in range(len(classes)))
        noise = random.integers(0, 20, (side, side))
        save((np.asarray(ids) * (200 // len(classes)) + noise).astype(np.uint8), root / "images" / f"{number:03d}.png")
        save(np.asarray(ids, np.uint8), root / "masks" / f"{number:03d}.png")
        is_last = number == images - 1
        cases.append([f"{number:03d}", f"p{number}", "alone" if is_last else f"part {number % categories}"])
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    with (root / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "patient", "category"], *cases])
    return root
