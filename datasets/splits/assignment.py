"""Splits into training, validation and test: by patient, nested over labelled fractions, equal for all arms."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

from datasets.errors import DataError
from datasets.settings import SplitSettings, ValidationShare
from datasets.source import AnnotationKind, Index
from datasets.splits.named import check_named, fixed_test, validation_patients
from datasets.splits.patients import Members, count_cases, count_images, deal_folds, members_of, patient_order, rows_of

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
    """Rows of one replicate, in ascending order.

    `labelled` are training rows with annotation, `unlabelled` those whose annotation is hidden or missing.
    """

    labelled: tuple[int, ...]
    validation: tuple[int, ...]
    unlabelled: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def labelled_images(self) -> int:
        """Number of annotated images this replicate needs, including validation."""
        return len(self.labelled) + len(self.validation)


def target_split(
    index: Index,
    settings: SplitSettings,
    *,
    annotation_kind: AnnotationKind,
    folds: int,
    fold: int,
    seed: int,
    labelled: float,
    min_cases: int,
    reserve: float | None = None,
) -> Split:
    """Split the target data for one fold, seed and number of labelled images.

    With fewer than `min_cases` validation images or volumes, these are training images.
    `labelled` is a share of the training images (float) or a number of images (int). Rows with faults are excluded.
    The order in which patients are labelled is drawn per seed and fold: with one order per seed, small subsets of all
    folds would share most of their patients, and intervals over folds would miss the variance due to the choice of
    labelled patients. For the same reason patients of the `reserve` (the share used by a search, which is in no test
    fold) keep their position in the order. Raises `DataError` if no test or training images are left.
    """
    seed = seed if settings.seed is None else settings.seed
    members, ordered = _ordered_patients(index, annotation_kind, seed, fold)
    check_named(index, settings, members, annotation_kind)
    seen = reserved(index, settings, annotation_kind, reserve) if reserve else frozenset[str]()
    test_patients, part = _test_and_validation(
        index, settings, members, annotation_kind=annotation_kind, folds=folds, fold=fold, seed=seed, seen=seen
    )
    order = [patient for patient in ordered if patient not in test_patients]
    prefix = order[: _prefix_length(order, members, labelled)]
    validators = _validators(index, settings, order=prefix, part=part)
    if count_cases(index, members, validators) < min_cases:
        validators = set()
    hidden = rows_of(members, order[len(prefix) :])
    return Split(
        labelled=_training_rows(index, members, prefix, validators, annotation_kind),
        validation=rows_of(members, validators),
        unlabelled=tuple(
            sorted((*hidden, *_unannotated_rows(index, settings, annotation_kind, test_patients | validators)))
        ),
        test=rows_of(members, test_patients),
    )


def pretraining_split(
    index: Index,
    settings: SplitSettings,
    *,
    annotation_kind: AnnotationKind | None,
    seed: int,
    min_cases: int,
    exclude: frozenset[int],
) -> Split:
    """Split pretraining data; `annotation_kind` None uses images without annotation, `exclude` are rows to leave out.

    A fixed test set is held out. With `folds` nothing is held out for testing, and validation uses the default share.
    """
    seed = seed if settings.seed is None else settings.seed
    usable = _usable(index, annotation_kind)
    members = members_of(index, usable)
    test_patients = set() if settings.test == "folds" else fixed_test(index, settings, members, annotation_kind)
    kept = [row for row in usable if row not in exclude]
    remaining = members_of(index, kept)
    order = [patient for patient in patient_order(index, kept, seed) if patient not in test_patients]
    if settings.validation == "folds":
        settings = settings.model_copy(update={"validation": ValidationShare()})
    validators = _validators(index, settings, order=order, part=())
    if count_cases(index, remaining, validators) < min_cases:
        validators = set()
    return Split(
        labelled=_training_rows(index, remaining, order, validators, annotation_kind),
        validation=rows_of(remaining, validators),
        unlabelled=tuple(
            row for row in _unannotated_rows(index, settings, annotation_kind, test_patients) if row not in exclude
        ),
        test=rows_of(remaining, test_patients & remaining.keys()),
    )


@lru_cache(maxsize=8)
def reserved(index: Index, settings: SplitSettings, annotation_kind: AnnotationKind, share: float) -> frozenset[str]:
    """Return the patients with annotation that a search may use, stratified by category and equal for all seeds.

    With a fixed test set they are a share of the other patients. Raises `DataError` if no patient is left.
    """
    # A separate random order: otherwise the reserve would be the first labelled patients of that seed in each fold.
    members, ordered = _ordered_patients(index, annotation_kind, -1 - (settings.seed or 0), None)
    test_patients = set() if settings.test == "folds" else fixed_test(index, settings, members, annotation_kind)
    candidates = [patient for patient in ordered if patient not in test_patients]
    count = max(1, round(share * len(candidates)))
    if count >= len(candidates):
        raise DataError(
            f"a reserve of {share} takes all {count} patients that do not test; allowed: a share that leaves some; "
            "lower search.reserve"
        )
    return frozenset(candidates[:count])


def reserve_split(
    index: Index, settings: SplitSettings, *, annotation_kind: AnnotationKind | None, share: float, min_cases: int
) -> Split:
    """Split the reserve into training and validation for a search; the test set is empty.

    Patients outside the reserve are excluded. `annotation_kind` None uses images without annotation.

    Raises `DataError`.
    """
    settings = settings.model_copy(update={"seed": settings.seed or 0})
    reserve = reserved(index, settings, "masks", share)
    outside = frozenset(row for row in range(len(index)) if index.patients[row] not in reserve)
    part = settings.model_copy(update={"test": "folds"})
    return pretraining_split(
        index, part, annotation_kind=annotation_kind, seed=settings.seed or 0, min_cases=min_cases, exclude=outside
    )


def fingerprint(index: Index, rows: Iterable[int], annotation_kinds: Sequence[AnnotationKind]) -> str:
    """Return a 128-bit hash (hex) of ids, images and the given annotations of `rows`, independent of their order."""
    columns = [
        index.ids,
        index.content,
        *(index.annotation_digests[annotation_kind] for annotation_kind in annotation_kinds),
    ]
    lines = sorted(["\0".join([column[row] for column in columns]) for row in rows])
    return blake2b("\0".join([*annotation_kinds, "", *lines]).encode(), digest_size=16).hexdigest()


def _usable(index: Index, annotation_kind: AnnotationKind | None) -> list[int]:
    if annotation_kind is None:
        return [row for row, fault in enumerate(index.faults) if not fault]
    faults = index.faults
    return [
        row
        for row, annotation in enumerate(index.annotation_digests.get(annotation_kind, ()))
        if annotation and not faults[row]
    ]


def _test_and_validation(
    index: Index, settings: SplitSettings, members: Members, *, annotation_kind: AnnotationKind, folds: int, fold: int,
    seed: int, seen: frozenset[str],
) -> tuple[set[str], Sequence[str]]:  # fmt: skip
    """Return the test patients (none of `seen`), and the fold for validation if folds are used for it."""
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
        parts = _folds(index, annotation_kind, seen, folds, seed)
        return set(parts[fold]), parts[(fold + 1) % folds]
    test_patients = fixed_test(index, settings, members, annotation_kind)
    if not by_fold:
        return test_patients, ()
    return test_patients, _folds(index, annotation_kind, frozenset(test_patients), folds, seed)[fold]


# Cached: a study needs the same orders and folds thousands of times, for every labelled fraction.
@lru_cache(maxsize=64)
def _ordered_patients(
    index: Index, annotation_kind: AnnotationKind, seed: int, fold: int | None
) -> tuple[Members, tuple[str, ...]]:
    """Return the rows of the patients with annotation, and the order of these patients in this fold."""
    members = _annotated_patients(index, annotation_kind)
    return members, patient_order(index, rows_of(members, members), seed, fold)


@lru_cache(maxsize=8)
def _annotated_patients(index: Index, annotation_kind: AnnotationKind) -> Members:
    return members_of(index, _usable(index, annotation_kind))


@lru_cache(maxsize=8)
def _folds(
    index: Index, annotation_kind: AnnotationKind, excluded: frozenset[str], folds: int, seed: int
) -> list[list[str]]:
    """Return the folds of all patients with annotation, without those of a fixed test set or a reserve."""
    members = _annotated_patients(index, annotation_kind)
    remaining = {patient: rows for patient, rows in members.items() if patient not in excluded}
    return deal_folds(index, remaining, folds=folds, seed=seed)


def _prefix_length(order: Sequence[str], members: Members, labelled: float) -> int:
    """Return the length of the shortest prefix of patients with at least the labelled number of images."""
    total = count_images(members, order)
    # 0.07 of 100 images is 7.000000000000001 in floating point, but means 7.
    required = labelled if isinstance(labelled, int) else math.ceil(round(labelled * total, 6))
    if not 0 < required <= total:
        raise DataError(
            f"labelled is {labelled} of {total} training images; allowed: a share above 0 up to 1, "
            f"or 1 to {total} images; change the labelled amount"
        )
    images = list(accumulate(len(members[patient]) for patient in order))
    return bisect_left(images, required) + 1


def _validators(index: Index, settings: SplitSettings, *, order: Sequence[str], part: Sequence[str]) -> set[str]:
    """Return the validation patients of `order`; `part` is the validation fold."""
    validation = settings.validation
    if isinstance(validation, ValidationShare):
        step = round(1 / validation.share)
        return set(order[step - 1 :: step])
    if validation == "folds":
        return set(part).intersection(order)
    return set(validation_patients(index, settings).intersection(order))


def _training_rows(
    index: Index,
    members: Members,
    patients: Sequence[str],
    validators: set[str],
    annotation_kind: AnnotationKind | None,
) -> tuple[int, ...]:
    training = rows_of(members, [patient for patient in patients if patient not in validators])
    if index.excluded_from_training and annotation_kind == "masks":
        training = tuple(row for row in training if not index.excluded_from_training[row])
    if not training:
        raise DataError(
            f"no image is left that trains: of {len(patients)} patients {len(validators)} validate; "
            "allowed: at least one image; enlarge the labelled amount or shrink test and validation"
        )
    return training


def _unannotated_rows(
    index: Index, settings: SplitSettings, annotation_kind: AnnotationKind | None, held_out: set[str]
) -> list[int]:
    """Return the training rows without annotation."""
    if annotation_kind is None:
        return []
    official = "test" if settings.test == "official" else None
    return [
        row
        for row, annotation in enumerate(index.annotation_digests.get(annotation_kind) or [""] * len(index))
        if not annotation
        and not index.faults[row]
        and index.patients[row] not in held_out
        and index.official[row] != official
    ]
