"""The same patient or picture in a pretraining set and among the target's cases."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.sample import Index

SAME_PICTURE = 10
"""Largest number of the 256 thumbnail bits in which two encodings of one picture differ.

Measured on 305 radiographs and fundus photographs: JPEG down to quality 50 and resizing down to 128 pixels change
at most 9 bits; different pictures differ in at least 14, of different chests in at least 23.
"""
BLOCK, TARGET_BLOCK = 4096, 16
"""Pairs compared at a time: 64 k words, half a MiB."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A pretraining row and a target row that show one patient, are one file, or look the same."""

    kind: Literal["patient", "file", "picture"]
    row: int
    target_row: int


def matches(pretraining: Index, target: Index) -> list[Match]:
    """Return every match. A pair may be there as a patient and as a file or picture, never as both of these.

    Pictures are compared by the Hamming distance of their difference hashes; images without one never match.
    """
    files = list(_equal(pretraining.content, target.content))
    same = set(files)
    pictures = (pair for pair in _alike(pretraining.thumbnails, target.thumbnails) if pair not in same)
    return [
        *(_match("patient", pair) for pair in _equal(pretraining.patients, target.patients)),
        *(_match("file", pair) for pair in files),
        *(_match("picture", pair) for pair in pictures),
    ]


def repeats(index: Index, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of these rows that are one file, or look the same, and belong to different patients."""
    content, thumbnails = ([column[row] for row in rows] for column in (index.content, index.thumbnails))
    found = sorted({*_equal(content, content), *_alike(thumbnails, thumbnails)})
    pairs = [(rows[first], rows[second]) for first, second in found if first < second]
    return [(first, second) for first, second in pairs if index.patients[first] != index.patients[second]]


def _match(kind: Literal["patient", "file", "picture"], pair: tuple[int, int]) -> Match:
    return Match(kind=kind, row=pair[0], target_row=pair[1])


def _equal(pretraining: Sequence[str], target: Sequence[str]) -> Iterator[tuple[int, int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for target_row, value in enumerate(target):
        if value:
            rows[value].append(target_row)
    for row, value in enumerate(pretraining):
        for target_row in rows.get(value, ()):
            yield row, target_row


def _alike(pretraining: Sequence[str], target: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the rows whose hashes differ in at most `SAME_PICTURE` bits, by target row.

    Few pairs are that close in a quarter of the bits already, so the other three quarters are compared for
    these only. Blocks of pairs that fit into a processor's cache make it several times faster still.
    """
    rows, hashes = _hashes(pretraining)
    target_rows, wanted = _hashes(target)
    found = [
        (int(target_rows[b]), int(rows[a]))
        for start in range(0, len(rows), BLOCK)
        for first in range(0, len(target_rows), TARGET_BLOCK)
        for a, b in _close(hashes, wanted, start, first)
    ]
    return ((row, target_row) for target_row, row in sorted(found))


def _close(
    hashes: NDArray[np.uint64], wanted: NDArray[np.uint64], start: int, first: int
) -> Iterator[tuple[np.int64, np.int64]]:
    """Yield where the hashes of one block of pairs are the same picture's."""
    some, few = hashes[start : start + BLOCK], wanted[first : first + TARGET_BLOCK]
    near = np.bitwise_count(few[:, None, 0] ^ some[None, :, 0]) <= SAME_PICTURE
    b, a = np.divmod(np.flatnonzero(near), len(some))
    distance = np.bitwise_count(some[a] ^ few[b]).sum(axis=1, dtype=np.uint16)
    same = distance <= SAME_PICTURE
    yield from zip(start + a[same], first + b[same], strict=True)


def _hashes(thumbnails: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows that have a thumbnail, and their hashes as (rows, 4) words of 64 bits.

    Every word holds a part of each second line of the thumbnail: dark borders alone fill none of them.
    """
    rows = np.array([row for row, text in enumerate(thumbnails) if text], np.int64)
    data = bytes.fromhex("".join(text for text in thumbnails if text))
    spread = np.frombuffer(data, np.uint8).reshape(-1, 8, 4).transpose(0, 2, 1)
    return rows, np.ascontiguousarray(spread).view(np.uint64)[..., 0]
