"""A new user's own images in the `folder` layout: overlapping classes, findings for all, masks for most."""

from pathlib import Path

import numpy as np

from datasets.sources import PhantomSettings, open_source
from tests.support.pictures import save

IMAGES, PATIENTS, WITHOUT_MASKS = 24, 12, 4
CLASSES = ("right_lung", "left_lung", "heart")
FINDINGS = ("opacity", "cardiomegaly")


def write_own_data(root: Path, *, size: int = 48) -> Path:
    """Write `images/`, `masks/<class>/`, `labels.csv` and `cases.csv`; the last images have no masks."""
    source = open_source(
        PhantomSettings(images=IMAGES, patients=PATIENTS, seed=5, size=size, classes=CLASSES, labels=FINDINGS)
    )
    labels, cases = [",".join(("image", *FINDINGS))], ["image,patient"]
    for row in range(IMAGES):
        name, patient = f"{row:03d}", row * PATIENTS // IMAGES
        save(source.image(row), root / "images" / f"{name}.png")
        if row < IMAGES - WITHOUT_MASKS:
            for label, mask in zip(CLASSES, source.masks(row), strict=True):
                save(mask * 255, root / "masks" / label / f"{name}.png")
        findings = ("" if np.isnan(value) else f"{value:.0f}" for value in source.labels(row))
        labels.append(",".join((name, *findings)))
        cases.append(f"{name},patient-{patient:02d}")
    (root / "labels.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (root / "cases.csv").write_text("\n".join(cases) + "\n", encoding="utf-8")
    return root
