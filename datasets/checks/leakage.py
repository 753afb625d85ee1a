"""Leakage: patients or images of the target data that also occur in pretraining data."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from datasets.source import Index, file_contents

MAX_HASH_DISTANCE = 10
"""Maximum Hamming distance of the 256-bit thumbnail hashes of two encodings of one image.

Measured on 305 radiographs and fundus photographs: JPEG down to quality 50 and resizing down to 128 pixels change
at most 9 bits; different images differ in at least 14, those of different chests in at least 23.
"""
BLOCK, TARGET_BLOCK = 4096, 16
"""Block size of the comparison: 64 k words, half a MiB."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """A pretraining row and a target row of the same patient, the same file, or the same image."""

    kind: Literal["patient", "file", "picture"]
    row: int
    target_row: int


def matches(pretraining: Index, target: Index) -> list[Match]:
    """Return all matches. A pair can match by patient and by file or image, but not by both file and image.

    Images are compared by the Hamming distance of their difference hashes; images without a hash never match.
    """
    files = list(_equal_files(pretraining, target))
    same_files = set(files)
    look_alikes = (pair for pair in _similar_rows(pretraining.thumbnails, target.thumbnails) if pair not in same_files)
    return [
        *(_match("patient", pair) for pair in _equal_rows(pretraining.patients, target.patients)),
        *(_match("file", pair) for pair in files),
        *(_match("picture", pair) for pair in look_alikes),
    ]


def repeats(index: Index, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return (earlier row, row) for each row that duplicates an earlier row of another patient.

    Duplicates are the same file or look the same. Of several earlier rows the first is returned.
    """
    patients = np.unique([index.patients[row] for row in rows], return_inverse=True)[1]
    earlier = np.full(len(rows), len(rows))
    for first, second in _equal_pairs([file_contents(index.content[row])[0] for row in rows], patients):
        earlier[second] = first
    for firsts, seconds in _similar_pairs([index.thumbnails[row] for row in rows], patients):
        np.minimum.at(earlier, seconds, firsts)
    return [(rows[int(earlier[position])], rows[position]) for position in np.flatnonzero(earlier < len(rows)).tolist()]


def _equal_pairs(content: Sequence[str], patients: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield the first earlier position with equal content and another patient, and the position itself."""
    firsts: dict[str, list[int]] = {}
    """First positions of two patients by content."""
    for position, value in enumerate(content):
        known = firsts.setdefault(value, [])
        match = next((first for first in known if patients[first] != patients[position]), None)
        if value and match is not None:
            yield match, position
        if len(known) < 2 and (not known or match is not None):
            known.append(position)


def _similar_pairs(
    thumbnails: Sequence[str], patients: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield arrays of earlier and later positions of different patients with similar hashes."""
    positions, hashes = _hashes(thumbnails)
    for start in range(0, len(positions), BLOCK):
        for first in range(start, len(positions), TARGET_BLOCK):
            earlier, later = (positions[block] for block in _close_hashes(hashes, hashes, start, first))
            is_match = (earlier < later) & (patients[earlier] != patients[later])
            yield earlier[is_match], later[is_match]


def _match(kind: Literal["patient", "file", "picture"], pair: tuple[int, int]) -> Match:
    return Match(kind=kind, row=pair[0], target_row=pair[1])


def _equal_files(pretraining: Index, target: Index) -> Iterator[tuple[int, int]]:
    """Yield rows and target rows that have a file in common; of a target volume its first slice alone."""
    rows: dict[str, dict[str, int]] = defaultdict(dict)
    for target_row, content in enumerate(target.content):
        for file in filter(None, file_contents(content)):
            rows[file].setdefault(target.case(target_row), target_row)
    for row, content in enumerate(pretraining.content):
        targets = {target_row: None for file in file_contents(content) for target_row in rows[file].values() if file}
        yield from ((row, target_row) for target_row in targets)


def _equal_rows(pretraining: Sequence[str], target: Sequence[str]) -> Iterator[tuple[int, int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for target_row, value in enumerate(target):
        if value:
            rows[value].append(target_row)
    for row, value in enumerate(pretraining):
        for target_row in rows.get(value, ()):
            yield row, target_row


def _similar_rows(pretraining: Sequence[str], target: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Return pairs of rows whose hashes differ in at most `MAX_HASH_DISTANCE` bits, ordered by target row.

    Few pairs are that close in the first quarter of the bits, so the other three quarters are compared only for
    these. Blocks that fit into the CPU cache make it several times faster.
    """
    rows, hashes = _hashes(pretraining)
    target_rows, target_hashes = _hashes(target)
    pairs = [
        (int(target_rows[b]), int(rows[a]))
        for start in range(0, len(rows), BLOCK)
        for first in range(0, len(target_rows), TARGET_BLOCK)
        for a, b in zip(*_close_hashes(hashes, target_hashes, start, first), strict=True)
    ]
    return ((row, target_row) for target_row, row in sorted(pairs))


def _close_hashes(
    hashes: NDArray[np.uint64], target_hashes: NDArray[np.uint64], start: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and target rows of the pairs in one block whose hashes are similar."""
    block, target_block = hashes[start : start + BLOCK], target_hashes[first : first + TARGET_BLOCK]
    near = np.bitwise_count(target_block[:, None, 0] ^ block[None, :, 0]) <= MAX_HASH_DISTANCE
    line, column = np.divmod(np.flatnonzero(near), len(block))
    distance = np.bitwise_count(block[column] ^ target_block[line]).sum(axis=1, dtype=np.uint16)
    is_match = distance <= MAX_HASH_DISTANCE
    return start + column[is_match], first + line[is_match]


def _hashes(thumbnails: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the rows that have a thumbnail, and their hashes as (rows, 4) words of 64 bits.

    Each word samples the whole thumbnail (alternate lines), so that dark borders do not fill a word.
    """
    rows = np.array([row for row, text in enumerate(thumbnails) if text], np.int64)
    data = bytes.fromhex("".join(text for text in thumbnails if text))
    spread = np.frombuffer(data, np.uint8).reshape(-1, 8, 4).transpose(0, 2, 1)
    return rows, np.ascontiguousarray(spread).view(np.uint64)[..., 0]
