"""A user's own COCO file with everything the format allows, on small images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasets.source import Pixels
from tests.support.blobs import blob, bounds, column_runs
from tests.support.pictures import save

CATEGORIES = [{"id": 7, "name": "rim"}, {"id": 3, "name": "disc"}]
"""Unordered and with gaps, like published ids."""


def write_coco(root: Path, *, images: int = 8, side: int = 64, seed: int = 0) -> Path:
    """Write `images` of width `side` and three quarters of its height, two per patient.

    One disc per image, with its frame as rim in every second one. Masks alternate between polygons, compressed
    and uncompressed run lengths; every fifth image is empty; the disc of the fourth is a crowd.
    """
    entries, annotations = [], []
    height = side * 3 // 4
    for number in range(images):
        image, mask = blob(seed * 10_000 + number, width=side, height=height, visible=number % 5 != 4)
        name = f"part{number % 2}/{number:04d}.png"
        save(image, root / "images" / name)
        entry = {"id": number + 100, "file_name": name, "width": side, "height": height}
        category = "ill" if number % 2 else "well"
        entries.append({**entry, "patient": number // 2, "category": category})
        if mask.any():
            annotations += _annotations(mask, number)
    content = {"info": {}, "images": entries, "annotations": annotations, "categories": CATEGORIES}
    path = root / "annotations" / "instances.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root


def _annotations(mask: Pixels, number: int) -> list[dict[str, Any]]:
    x, y, width, height = bounds(mask)
    box = [x, y, width, height]
    common = {"image_id": number + 100, "bbox": box, "area": int(mask.sum())}
    disc = {**common, "id": 2 * number, "category_id": 3, "iscrowd": int(number == 3)}
    disc["segmentation"] = _uncompressed(mask) if number % 3 == 0 else _compressed(mask)
    if number % 2:
        return [disc]
    frame = [x, y, x + width, y, x + width, y + height, x, y + height]
    return [disc, {**common, "id": 2 * number + 1, "category_id": 7, "iscrowd": 0, "segmentation": [frame]}]


def _compressed(mask: Pixels) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def _uncompressed(mask: Pixels) -> dict[str, Any]:
    counts, end = [], 0
    for start, length in column_runs(mask):
        counts += [start - end, length]
        end = start + length
    return {"size": list(mask.shape), "counts": [*counts, mask.size - end]}
