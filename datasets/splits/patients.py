"""Patients put in order, dealt to folds, drawn for a test set: seeded, stratified, platform independent."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from datasets.errors import DataError
from datasets.source import Index

Members = Mapping[str, Sequence[int]]
"""Rows by patient."""

SEARCHED: Final = 2000
"""Images up to which a combination of whole patients is searched for; it bounds the memory of the search."""


def members_of(index: Index, rows: Iterable[int]) -> dict[str, list[int]]:
    """Group rows by patient."""
    members: dict[str, list[int]] = {}
    patients = index.patients
    for row in rows:
        members.setdefault(patients[row], []).append(row)
    return members


def rows_of(members: Members, patients: Iterable[str]) -> tuple[int, ...]:
    """Return the rows of some patients, ascending."""
    return tuple(sorted(row for patient in patients for row in members[patient]))


def count_images(members: Members, patients: Iterable[str]) -> int:
    """Return how many images some patients have."""
    return sum(len(members[patient]) for patient in patients)


def patient_order(index: Index, rows: Iterable[int], seed: int, fold: int | None = None) -> tuple[str, ...]:
    """Return the patients of `rows` in an order whose every prefix has about the categories of the whole.

    Orders of different folds are independent; `fold=None` gives the one order of data that no fold divides.

    Systematic sampling: the k-th of a category's n patients stands at (k + u) / n, with one random u in
    [0, 1) per category, so each patient is equally likely to come early. A patient has its most frequent
    category.
    """
    placed: list[tuple[float, str]] = []
    suffix = "" if fold is None else f" of fold {fold}"
    for category, patients in _strata(index, members_of(index, rows), seed, f"order{suffix}").items():
        start = _draw(seed, f"start{suffix}", category) / 2**64
        placed += [((k + start) / len(patients), patient) for k, patient in enumerate(patients)]
    return tuple(patient for _, patient in sorted(placed))


def deal_folds(index: Index, members: Members, *, folds: int, seed: int) -> list[list[str]]:
    """Deal patients to folds: every category evenly, images balanced to within the largest patient.

    Raises `DataError` for more folds than patients.
    """
    if folds > len(members):
        raise DataError(
            f"{folds} folds over {len(members)} patients; allowed: at most one a patient; lower compare.folds"
        )
    dealt: list[list[str]] = [[] for _ in range(folds)]
    images = [0] * folds
    for patients in sorted(_strata(index, members, seed, "folds").values(), key=len, reverse=True):
        for start in range(0, len(patients), folds):
            largest_first = sorted(patients[start : start + folds], key=lambda patient: -len(members[patient]))
            emptiest_first = sorted(range(folds), key=images.__getitem__)
            for patient, fold in zip(largest_first, emptiest_first, strict=False):
                dealt[fold].append(patient)
                images[fold] += len(members[patient])
    return dealt


def draw_images(order: Sequence[str], members: Members, wanted: int) -> set[str]:
    """Choose whole patients with `wanted` images, else as few more as possible; early patients first.

    Raises `DataError` where the patients have fewer images.
    """
    total = count_images(members, order)
    if wanted > total:
        raise DataError(
            f"a test set of {wanted} images out of {total}; allowed: fewer than there are; lower split.test"
        )
    largest = max((len(members[patient]) for patient in order), default=0)
    taken, missing = 0, wanted
    while missing > SEARCHED + largest:
        missing -= len(members[order[taken]])
        taken += 1
    return {*order[:taken], *_combination(order[taken:], members, missing, missing + largest)}


def _combination(order: Sequence[str], members: Members, wanted: int, most: int) -> set[str]:
    """Choose patients with `wanted` images or the nearest above; the first in order where several fit."""
    # Bit i of reachable[k]: some of the patients from the k-th on have i images together.
    reachable, kept_bits = [1], (1 << most + 1) - 1
    for patient in reversed(order):
        reachable.append((reachable[-1] | reachable[-1] << len(members[patient])) & kept_bits)
    reachable.reverse()
    missing = next(images for images in range(wanted, most + 1) if reachable[0] >> images & 1)
    chosen: set[str] = set()
    for patient, rest in zip(order, reachable[1:], strict=True):
        left = missing - len(members[patient])
        if left >= 0 and rest >> left & 1:
            chosen.add(patient)
            missing = left
    return chosen


def _draw(seed: int, purpose: str, name: str) -> int:
    """Return 64 random bits that depend on nothing but the arguments."""
    return int.from_bytes(blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest())


def _strata(index: Index, members: Members, seed: int, purpose: str) -> dict[str, list[str]]:
    """Group patients by category, shuffled within."""
    strata: dict[str, list[tuple[int, str]]] = {}
    for patient, rows in members.items():
        category = index.categories[rows[0]]
        if len(rows) > 1:
            cases = Counter([index.categories[row] for row in rows])
            category = min(cases, key=lambda name: (-cases[name], name))
        name = patient.removeprefix(f"{index.collection}/")
        strata.setdefault(category, []).append((_draw(seed, purpose, name), patient))
    return {category: [patient for _, patient in sorted(strata[category])] for category in sorted(strata)}
