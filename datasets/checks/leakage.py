"""The same patient or picture in a pretraining set and among the target's cases."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.source import Index

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
    """Return (earlier row, row) for each of these rows that shows an earlier one of another patient once more.

    They are one file or look the same. Of several earlier rows the first is returned.
    """
    patients = np.unique([index.patients[row] for row in rows], return_inverse=True)[1]
    earlier = np.full(len(rows), len(rows))
    for first, second in _equal_pairs([index.content[row] for row in rows], patients):
        earlier[second] = first
    for firsts, seconds in _alike_pairs([index.thumbnails[row] for row in rows], patients):
        np.minimum.at(earlier, seconds, firsts)
    return [(rows[int(earlier[place])], rows[place]) for place in np.flatnonzero(earlier < len(rows)).tolist()]


def _equal_pairs(content: Sequence[str], patients: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield for each place the first earlier place with equal content and another patient."""
    firsts: dict[str, list[int]] = {}
    """By content, the first places of two patients."""
    for place, value in enumerate(content):
        known = firsts.setdefault(value, [])
        other = next((first for first in known if patients[first] != patients[place]), None)
        if value and other is not None:
            yield other, place
        if len(known) < 2 and (not known or other is not None):
            known.append(place)


def _alike_pairs(
    thumbnails: Sequence[str], patients: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield arrays of earlier and later places of different patients whose hashes are of one picture."""
    places, hashes = _hashes(thumbnails)
    for start in range(0, len(places), BLOCK):
        for first in range(start - start % TARGET_BLOCK, len(places), TARGET_BLOCK):
            before, after = (places[found] for found in _close(hashes, hashes, start, first))
            wanted = (before < after) & (patients[before] != patients[after])
            yield before[wanted], after[wanted]


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
        for a, b in zip(*_close(hashes, wanted, start, first), strict=True)
    ]
    return ((row, target_row) for target_row, row in sorted(found))


def _close(
    hashes: NDArray[np.uint64], wanted: NDArray[np.uint64], start: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and target rows of one block of pairs whose hashes are of one picture."""
    some, few = hashes[start : start + BLOCK], wanted[first : first + TARGET_BLOCK]
    near = np.bitwise_count(few[:, None, 0] ^ some[None, :, 0]) <= SAME_PICTURE
    b, a = np.divmod(np.flatnonzero(near), len(some))
    distance = np.bitwise_count(some[a] ^ few[b]).sum(axis=1, dtype=np.uint16)
    same = distance <= SAME_PICTURE
    return start + a[same], first + b[same]


def _hashes(thumbnails: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Rows that have a thumbnail, and their hashes as (rows, 4) words of 64 bits.

    Every word holds a part of each second line of the thumbnail: dark borders alone fill none of them.
    """
    rows = np.array([row for row, text in enumerate(thumbnails) if text], np.int64)
    data = bytes.fromhex("".join(text for text in thumbnails if text))
    spread = np.frombuffer(data, np.uint8).reshape(-1, 8, 4).transpose(0, 2, 1)
    return rows, np.ascontiguousarray(spread).view(np.uint64)[..., 0]
