"""Descriptions of the volumes and the spacing of a data set."""

from collections import Counter
from collections.abc import Sequence

from datasets.source import Index


def volumes_text(index: Index) -> str:
    """Return number, slices and spacing of the volumes, "" without volumes."""
    slices = Counter(filter(None, index.volumes))
    if not slices:
        return ""
    rows = [row for row in range(len(index)) if index.volume(row)]
    spacings = [index.spacing(row) for row in rows]
    several = "s" * (max(slices.values()) > 1)
    count = f"{len(slices):,} volume{'s' * (len(slices) > 1)} of {_range(list(slices.values()))} slice{several}"
    if not all(spacings):
        return f"{count}, some of unknown spacing" if any(spacings) else f"{count} of unknown spacing"
    return f"{count}, voxels of {' x '.join(map(_range, zip(*spacings, strict=True)))} mm"


def distance_unit(index: Index) -> str:
    """Return the unit of `metrics.tolerance` and of distances."""
    return "mm" if index.has_spacing else "pixels"


def spacing_warning(index: Index) -> str:
    """Return that only some images with masks state the size of their pixels, "" if all or none do."""
    masks = index.annotation_digests.get("masks", ())
    rows = [row for row, mask in enumerate(masks) if mask and not index.faults[row]]
    unknown = [index.ids[row] for row in rows if not index.spacing(row)]
    if not unknown or len(unknown) == len(rows):
        return ""
    return (
        f"{len(unknown)} of {len(rows)} images with masks state no size of their pixels ({unknown[0]}), so "
        "metrics.tolerance and distances are in pixels; allowed: all or none; convert them for distances in mm"
    )


def _range(values: Sequence[float]) -> str:
    """Return the smallest and the largest value, one if they look the same."""
    return " to ".join(dict.fromkeys(f"{value:.3g}" for value in (min(values), max(values))))
