"""Ordering of patients, folds and test sets: seeded, stratified, platform independent."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from datasets.errors import DataError
from datasets.source import Index

Members = Mapping[str, Sequence[int]]
"""Rows by patient."""

SEARCHED: Final = 2000
"""Number of images up to which an exact combination of patients is searched for; bounds the memory used."""


def members_of(index: Index, rows: Iterable[int]) -> dict[str, list[int]]:
    """Group rows by patient."""
    members: dict[str, list[int]] = {}
    patients = index.patients
    for row in rows:
        members.setdefault(patients[row], []).append(row)
    return members


def rows_of(members: Members, patients: Iterable[str]) -> tuple[int, ...]:
    """Return the rows of the given patients in ascending order."""
    return tuple(sorted(row for patient in patients for row in members[patient]))


def count_images(members: Members, patients: Iterable[str]) -> int:
    """Return the number of images of the given patients."""
    return sum(len(members[patient]) for patient in patients)


def count_cases(index: Index, members: Members, patients: Iterable[str]) -> int:
    """Return the number of images and volumes of the given patients."""
    if not index.volumes:
        return count_images(members, patients)
    return len({index.case(row) for patient in patients for row in members[patient]})


def patient_order(index: Index, rows: Iterable[int], seed: int, fold: int | None = None) -> tuple[str, ...]:
    """Return the patients of `rows` in an order in which every prefix is approximately stratified by category.

    Orders of different folds are independent; `fold=None` is the order of data without folds.

    Systematic sampling: the k-th of the n patients of a category is placed at (k + u) / n, with one random u in
    [0, 1) per category, so each patient is equally likely to come early. The category of a patient is the most
    frequent one of its images.
    """
    placed: list[tuple[float, str]] = []
    suffix = "" if fold is None else f" of fold {fold}"
    for category, patients in _strata(index, members_of(index, rows), seed, f"order{suffix}").items():
        start = _draw(seed, f"start{suffix}", category) / 2**64
        placed += [((k + start) / len(patients), patient) for k, patient in enumerate(patients)]
    return tuple(patient for _, patient in sorted(placed))


def deal_folds(index: Index, members: Members, *, folds: int, seed: int) -> list[list[str]]:
    """Distribute patients over folds, stratified by category and balanced by number of images.

    The numbers of images differ by at most those of the largest patient. Raises `DataError` for more folds than
    patients.
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


def draw_images(order: Sequence[str], members: Members, count: int) -> set[str]:
    """Choose patients with `count` images in total, or the next possible number; early patients first.

    Raises `DataError` if the patients have fewer images.
    """
    total = count_images(members, order)
    if count > total:
        raise DataError(f"a test set of {count} images out of {total}; allowed: fewer than there are; lower split.test")
    largest = max((len(members[patient]) for patient in order), default=0)
    taken, missing = 0, count
    while missing > SEARCHED + largest:
        missing -= len(members[order[taken]])
        taken += 1
    return {*order[:taken], *_combination(order[taken:], members, missing, missing + largest)}


def _combination(order: Sequence[str], members: Members, count: int, limit: int) -> set[str]:
    """Choose patients with `count` images or the nearest number above; ties are resolved by the order."""
    # Bit i of reachable[k]: a subset of the patients from the k-th on has i images in total.
    reachable, kept_bits = [1], (1 << limit + 1) - 1
    for patient in reversed(order):
        reachable.append((reachable[-1] | reachable[-1] << len(members[patient])) & kept_bits)
    reachable.reverse()
    missing = next(images for images in range(count, limit + 1) if reachable[0] >> images & 1)
    chosen: set[str] = set()
    for patient, reachable_after in zip(order, reachable[1:], strict=True):
        remaining = missing - len(members[patient])
        if remaining >= 0 and reachable_after >> remaining & 1:
            chosen.add(patient)
            missing = remaining
    return chosen


def _draw(seed: int, purpose: str, name: str) -> int:
    """Return 64 pseudo-random bits determined by the arguments."""
    return int.from_bytes(blake2b(f"{seed}\0{purpose}\0{name}".encode(), digest_size=8).digest())


def _strata(index: Index, members: Members, seed: int, purpose: str) -> dict[str, list[str]]:
    """Group patients by category, shuffled within each."""
    strata: dict[str, list[tuple[int, str]]] = {}
    for patient, rows in members.items():
        category = index.categories[rows[0]]
        if len(rows) > 1:
            cases = Counter([index.categories[row] for row in rows])
            category = min(cases, key=lambda name: (-cases[name], name))
        name = patient.removeprefix(f"{index.collection}/")
        strata.setdefault(category, []).append((_draw(seed, purpose, name), patient))
    return {category: [patient for _, patient in sorted(strata[category])] for category in sorted(strata)}
