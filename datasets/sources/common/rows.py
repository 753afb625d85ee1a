"""Rows of an index: single images, and the slices of volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasets.cache.manifest import Manifest
from datasets.decoding.volume import Geometry
from datasets.settings import FileChannels, VolumeSettings
from datasets.sources.common.published import PublishedCase
from datasets.sources.common.tables import digest

MIN_DIGITS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """A row of an index: the image of a case, or one of its slices."""

    case: PublishedCase
    position: int
    """Position of the case in the list of cases."""
    number: int | None = None
    """Number of the slice as stored, None for a single image."""
    id: str

    @property
    def volume(self) -> str:
        """Return the name of the volume, "" for a single image."""
        return "" if self.number is None else self.case.id


def image_rows(cases: Sequence[PublishedCase]) -> list[SourceRow]:
    """Return the rows of cases without volumes."""
    return [SourceRow(case=case, position=position, id=case.id) for position, case in enumerate(cases)]


def rows_of(cases: Sequence[PublishedCase], files: Manifest) -> list[SourceRow]:
    """Return the rows of all cases ordered by id, such as `case1/017` for a slice."""
    rows = [
        row
        for position, case in enumerate(cases)
        for row in _rows(case, position, files.geometry(files.positions[case.path]))
    ]
    return sorted(rows, key=lambda row: row.id)


def _rows(case: PublishedCase, position: int, geometry: Geometry) -> Iterator[SourceRow]:
    """Yield the rows of a case; slices are numbered in the order of their positions."""
    slices = geometry.slices
    if not slices:  # also a volume that cannot be read
        yield SourceRow(case=case, position=position, id=case.id)
    digits = max(MIN_DIGITS, len(str(slices - 1)))
    for place, number in enumerate(geometry.frame_order or range(slices)):
        yield SourceRow(case=case, position=position, number=number, id=f"{case.id}/{place:0{digits}d}")


def content_of(
    row: SourceRow, files: Manifest, volumes: VolumeSettings | None, channels: FileChannels | None = None
) -> str:
    """Return the identity of the pixels of a row: hashes of its files, and for a slice its number, axis and window.

    The spacing of files that do not state it themselves, and the selected channels of a file, are part of it.
    """
    positions = [files.positions[path] for path in row.case.paths]
    hashes = [files.content[position] for position in positions]
    if not all(hashes):
        return ""
    content = "+".join(hashes)
    if row.case.spacing:
        content += f" spacing {' '.join(map(repr, row.case.spacing))}"
    if channels is not None:
        content += f" channels {' '.join(map(str, channels.selected))}"
    if row.number is None:
        return content
    window = volumes.window if volumes is not None else None
    scaled = "" if window is None else f" {window[0]!r} {window[1]!r}"
    return f"{content} {files.axis[positions[0]]} {row.number}{scaled}"


def slice_digest(masks: str, row: SourceRow, files: Manifest) -> str:
    """Return the digest of the masks of a row from that of the masks of its case."""
    if row.number is None or not masks:
        return masks
    return digest(masks, files.axis[files.positions[row.case.path]], row.number)


def thumbnail_of(row: SourceRow, files: Manifest) -> str:
    """Return the perceptual hash of a row; of a volume, only the middle slice has one.

    Neighbouring slices look alike, and so do the first ones of different volumes.
    """
    position = files.positions[row.case.path]
    is_middle = row.number is None or row.number == files.slices[position] // 2
    return files.thumbnail[position] if is_middle else ""


def values_of(path: str, number: int | None, files: Manifest) -> int:
    """Return the bit set of values in a file or in one of its slices, 0 if it cannot be read."""
    position = files.positions.get(path)
    if position is None:
        return 0
    if number is None or not files.slices[position]:
        return int(files.values[position] or "0", 16)
    values = files.slice_values[position].split()
    return int(values[number], 16) if number < len(values) else 0
