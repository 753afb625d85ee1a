"""Size of pixels in a JSON file beside a TIFF file, as nnU-Net writes it: `{"spacing": [5.0, 0.7, 0.7]}`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from datasets.decoding.decode import Decoded, split_channel, stem_of, suffix_of
from datasets.decoding.text import read_json
from datasets.decoding.volume import slice_spacing
from datasets.errors import DataError

SUFFIX: Final = ".json"
TIFF_SUFFIXES: Final = frozenset({".tif", ".tiff"})
KEY: Final = "spacing"
MAX_LENGTH: Final = 1e6
"""Maximum distance of pixels in mm."""
_EXAMPLE: Final = 'such as {"spacing": [5.0, 0.7, 0.7]} (distance of pages, height and width of a pixel in mm)'


def read_spacing(path: Path) -> tuple[float, ...]:
    """Return the spacing in mm, of pages (distance of pages, height, width) or of a single image (height, width).

    Raises `DataError` for a malformed file.
    """
    document = read_json(path, _EXAMPLE)
    values = document.get(KEY) if isinstance(document, dict) else None
    if not isinstance(values, list) or len(values) not in (2, 3) or not all(map(_is_length, values)):
        shown = json.dumps(values if isinstance(document, dict) else document)
        raise DataError(f"{path}: {KEY} is {shown}; allowed: three numbers above 0, {_EXAMPLE}; correct it")
    return tuple(map(float, values))


def stated_spacing(stated: Sequence[float], slices: int, axis: int) -> tuple[float, ...]:
    """Return `Geometry.spacing` from the values of a JSON file; () if a volume has no distance of pages.

    Args:
        stated: (distance of pages, height, width) or (height, width).
        slices: Number of slices, 0 for a single image.
        axis: The axis that the slices are perpendicular to.
    """
    if not slices:
        return tuple(stated[-2:])
    return slice_spacing(tuple(stated[::-1]), axis) if len(stated) == 3 else ()


def with_spacing(decoded: Decoded, image: Path) -> Decoded:
    """Return a decoded TIFF image with the spacing in the JSON file of its name, also of its name without a channel.

    JSON files without a spacing are other ones, such as annotations. Raises `DataError` for a malformed spacing.
    """
    stem = stem_of(image.name)
    files = [image.with_name(name + SUFFIX) for name in (stem, split_channel(stem)[0])]
    file = next((file for file in files if file.is_file()), None)
    if file is None or suffix_of(image.name) not in TIFF_SUFFIXES or not _has_spacing(file):
        return decoded
    geometry = decoded.geometry
    spacing = stated_spacing(read_spacing(file), geometry.slices, geometry.axis)
    return replace(decoded, geometry=replace(geometry, spacing=spacing))


def _has_spacing(file: Path) -> bool:
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(document, dict) and KEY in document


def _is_length(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MAX_LENGTH
