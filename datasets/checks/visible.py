"""Classes that are still visible in resized masks: thin structures vanish in small images."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np

from datasets.cache.atomic_files import read_hashed, write_hashed
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Index, ProgressCallback, Source
from datasets.targets import fit_masks

THREADS = 4
VERSION = 2


def classes_at(
    source: Source, index: Index, image: ImageSettings, cache: Path, progress: ProgressCallback | None = None
) -> list[frozenset[str]]:
    """Return the classes visible in the resized masks of each row; none for rows without masks or with a fault.

    Results are stored in `cache` by mask content, so masks are decoded once.
    """
    path = _cache_path(cache, index, image)
    known = _load(path)
    digests = index.annotation_digests["masks"]
    rows = [row for row, digest in enumerate(digests) if digest and not index.fault(row)]
    missing = list({digests[row]: row for row in rows if digests[row] not in known}.values())

    def visible_classes(row: int) -> list[str]:
        masks = fit_masks(source.masks(row), image)
        if index.overlapping:
            return [name for name, mask in zip(index.classes, masks, strict=True) if (mask == 1).any()]
        used = np.flatnonzero(np.bincount(masks.ravel(), minlength=len(index.classes) + 1))
        return [index.classes[number - 1] for number in used.tolist() if number not in (0, IGNORE)]

    with ThreadPoolExecutor(THREADS) as pool:
        for done, (row, names) in enumerate(zip(missing, pool.map(visible_classes, missing), strict=True), start=1):
            known[digests[row]] = names
            if progress is not None:
                progress(done, len(missing))
    if missing:
        _save(known, path)
    visible = [frozenset[str]()] * len(index)
    for row in rows:
        visible[row] = frozenset(known[digests[row]])
    return visible


def _cache_path(cache: Path, index: Index, image: ImageSettings) -> Path:
    text = f"{VERSION} {index.collection} {index.classes} {image.size} {image.fit}"
    return cache / "visible" / f"{blake2b(text.encode(), digest_size=16).hexdigest()}.json"


def _load(path: Path) -> dict[str, list[str]]:
    known: dict[str, list[str]] = json.loads(read_hashed(path) or b"{}")
    return known


def _save(known: dict[str, list[str]], path: Path) -> None:
    write_hashed(path, json.dumps(known).encode())
