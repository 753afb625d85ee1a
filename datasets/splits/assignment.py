"""Who trains, who validates, who tests: whole patients, nested over fractions, the same for every arm."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

from datasets.errors import DataError
from datasets.settings import SplitSettings, ValidationShare
from datasets.source import Index, Offer
from datasets.splits.named import check_named, fixed_test, named_rows
from datasets.splits.patients import Members, count_images, deal_folds, members_of, patient_order, rows_of

__all__ = [
    "Split",
    "fingerprint",
    "patient_order",
    "pretraining_split",
    "reserve_split",
    "reserved",
    "target_split",
]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one replicate, ascending.

    `labelled` trains with its annotation; of `unlabelled` training rows it is hidden or missing.
    """

    labelled: tuple[int, ...]
    validation: tuple[int, ...]
    unlabelled: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def labelled_images(self) -> int:
        """Annotated images this replicate costs; those that validate count too."""
        return len(self.labelled) + len(self.validation)


def target_split(
    index: Index,
    settings: SplitSettings,
    *,
    offer: Offer,
    folds: int,
    fold: int,
    seed: int,
    labelled: float,
    min_cases: int,
    reserve: float | None = None,
) -> Split:
    """Split the target data for one fold, seed and amount of labels.

    `labelled` is a share of the training images (float) or a number of images (int). Rows with faults take no
    part. The order in which patients are labelled is drawn for each seed and fold: with one order per seed, small
    subsets of all folds would share most of their patients, and intervals over folds would miss the variance due to
    who is labelled. For the same reason patients of the `reserve`, the share that a search has used and that no fold
    tests, keep their places in the order. Raises `DataError` if nothing is left to test or to train on.
    """
    seed = seed if settings.seed is None else settings.seed
    members, everyone = _ordered(index, offer, seed, fold)
    check_named(index, settings, members, offer)
    seen = reserved(index, settings, offer, reserve) if reserve else frozenset[str]()
    tested, part = _held_out(index, settings, members, offer=offer, folds=folds, fold=fold, seed=seed, seen=seen)
    order = [patient for patient in everyone if patient not in tested]
    prefix = order[: _prefix_length(order, members, labelled)]
    validators = _validators(index, settings, order=prefix, part=part)
    if count_images(members, validators) < min_cases:
        validators = set()
    hidden = rows_of(members, order[len(prefix) :])
    return Split(
        labelled=_training(members, prefix, validators),
        validation=rows_of(members, validators),
        unlabelled=tuple(sorted((*hidden, *_without(index, settings, offer, tested | validators)))),
        test=rows_of(members, tested),
    )


def pretraining_split(
    index: Index,
    settings: SplitSettings,
    *,
    offer: Offer | None,
    seed: int,
    min_cases: int,
    exclude: frozenset[int],
) -> Split:
    """Split data that is not the target's; `offer` None reads images only, `exclude` are rows to leave out.

    A fixed test part is held out. `folds` hold nothing out, and validate by the default share.
    """
    seed = seed if settings.seed is None else settings.seed
    usable = _usable(index, offer)
    members = members_of(index, usable)
    tested = set() if settings.test == "folds" else fixed_test(index, settings, members, offer)
    kept = [row for row in usable if row not in exclude]
    remaining = members_of(index, kept)
    order = [patient for patient in patient_order(index, kept, seed) if patient not in tested]
    if settings.validation == "folds":
        settings = settings.model_copy(update={"validation": ValidationShare()})
    validators = _validators(index, settings, order=order, part=())
    if count_images(remaining, validators) < min_cases:
        validators = set()
    return Split(
        labelled=_training(remaining, order, validators),
        validation=rows_of(remaining, validators),
        unlabelled=tuple(row for row in _without(index, settings, offer, tested) if row not in exclude),
        test=rows_of(remaining, tested & remaining.keys()),
    )


@lru_cache(maxsize=8)
def reserved(index: Index, settings: SplitSettings, offer: Offer, share: float) -> frozenset[str]:
    """Return the patients that a search may use: whole, with annotation, of all categories, the same for every seed.

    Where the test set is fixed they are a share of the others. Raises `DataError` where nobody is left to test.
    """
    # An order of its own: else the reserve would be the first labels of that seed in every fold.
    members, everyone = _ordered(index, offer, -1 - (settings.seed or 0), None)
    tested = set() if settings.test == "folds" else fixed_test(index, settings, members, offer)
    others = [patient for patient in everyone if patient not in tested]
    count = max(1, round(share * len(others)))
    if count >= len(others):
        raise DataError(
            f"a reserve of {share} takes all {count} patients that do not test; allowed: a share that leaves some; "
            "lower search.reserve"
        )
    return frozenset(others[:count])


def reserve_split(index: Index, settings: SplitSettings, *, offer: Offer | None, share: float, min_cases: int) -> Split:
    """Split the reserve itself, into what a search trains on and what judges it; nobody tests.

    Images of patients outside the reserve are in no part. `offer` None reads images only. Raises `DataError`.
    """
    settings = settings.model_copy(update={"seed": settings.seed or 0})
    own = reserved(index, settings, "masks", share)
    rows = frozenset(row for row in range(len(index)) if index.patients[row] not in own)
    part = settings.model_copy(update={"test": "folds"})
    return pretraining_split(index, part, offer=offer, seed=settings.seed or 0, min_cases=min_cases, exclude=rows)


def fingerprint(index: Index, rows: Iterable[int], offers: Sequence[Offer]) -> str:
    """Return 128 bits (hex) over what is read of `rows`, in any order: ids, images and those annotations."""
    columns = [index.ids, index.content, *(index.offers[offer] for offer in offers)]
    lines = sorted(["\0".join([column[row] for column in columns]) for row in rows])
    return blake2b("\0".join([*offers, "", *lines]).encode(), digest_size=16).hexdigest()


def _usable(index: Index, offer: Offer | None) -> list[int]:
    if offer is None:
        return [row for row, fault in enumerate(index.faults) if not fault]
    faults = index.faults
    return [row for row, held in enumerate(index.offers.get(offer, ())) if held and not faults[row]]


def _held_out(
    index: Index, settings: SplitSettings, members: Members, *, offer: Offer, folds: int, fold: int, seed: int,
    seen: frozenset[str],
) -> tuple[set[str], Sequence[str]]:  # fmt: skip
    """Return the patients that test, none of `seen`, and those whose turn it is to validate where folds do."""
    fixed, by_fold = settings.test != "folds", settings.validation == "folds"
    if folds > 1 and fixed and not by_fold:
        raise DataError(
            f"{folds} folds with a fixed test set would do nothing; allowed: folds 1, or validation: folds; set either"
        )
    if folds < 2 and (by_fold or not fixed):
        raise DataError(
            f"folds is {folds} where test or validation goes by folds; allowed: 2 or more; "
            "raise compare.folds, or fix the test set and validate by share"
        )
    if not fixed:
        parts = _parts(index, offer, seen, folds, seed)
        return set(parts[fold]), parts[(fold + 1) % folds]
    tested = fixed_test(index, settings, members, offer)
    if not by_fold:
        return tested, ()
    return tested, _parts(index, offer, frozenset(tested), folds, seed)[fold]


# Every amount of labels uses the same orders and folds: cached, because a study asks for them thousands of times.
@lru_cache(maxsize=64)
def _ordered(index: Index, offer: Offer, seed: int, fold: int | None) -> tuple[Members, tuple[str, ...]]:
    """Return the patients with annotation: their rows, and their order in this fold."""
    members = _annotated(index, offer)
    return members, patient_order(index, rows_of(members, members), seed, fold)


@lru_cache(maxsize=8)
def _annotated(index: Index, offer: Offer) -> Members:
    return members_of(index, _usable(index, offer))


@lru_cache(maxsize=8)
def _parts(index: Index, offer: Offer, without: frozenset[str], folds: int, seed: int) -> list[list[str]]:
    """Return the folds of all patients with annotation but those of a fixed test set or a reserve."""
    members = _annotated(index, offer)
    others = {patient: rows for patient, rows in members.items() if patient not in without}
    return deal_folds(index, others, folds=folds, seed=seed)


def _prefix_length(order: Sequence[str], members: Members, labelled: float) -> int:
    """Return how many patients, from the first on, have at least the labelled images."""
    total = count_images(members, order)
    # 0.07 of 100 images is 7.000000000000001 in floating point, but means 7.
    wanted = labelled if isinstance(labelled, int) else math.ceil(round(labelled * total, 6))
    if not 0 < wanted <= total:
        raise DataError(
            f"labelled is {labelled} of {total} training images; allowed: a share above 0 up to 1, "
            f"or 1 to {total} images; change the labelled amount"
        )
    images = list(accumulate(len(members[patient]) for patient in order))
    return bisect_left(images, wanted) + 1


def _validators(index: Index, settings: SplitSettings, *, order: Sequence[str], part: Sequence[str]) -> set[str]:
    """Return the patients of `order` that validate; `part` is the fold whose turn it is."""
    validation = settings.validation
    if isinstance(validation, ValidationShare):
        step = round(1 / validation.share)
        return set(order[step - 1 :: step])
    if validation == "folds":
        return set(part).intersection(order)
    return {index.patients[row] for row in named_rows(index, validation, "validation")}.intersection(order)


def _training(members: Members, patients: Sequence[str], validators: set[str]) -> tuple[int, ...]:
    training = rows_of(members, [patient for patient in patients if patient not in validators])
    if not training:
        raise DataError(
            f"no image is left that trains: of {len(patients)} patients {len(validators)} validate; "
            "allowed: at least one image; enlarge the labelled amount or shrink test and validation"
        )
    return training


def _without(index: Index, settings: SplitSettings, offer: Offer | None, held_out: set[str]) -> list[int]:
    """Return training rows that lack the annotation."""
    if offer is None:
        return []
    official = "test" if settings.test == "official" else None
    return [
        row
        for row, held in enumerate(index.offers.get(offer) or [""] * len(index))
        if not held
        and not index.faults[row]
        and index.patients[row] not in held_out
        and index.official[row] != official
    ]
