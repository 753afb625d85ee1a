"""Who trains, who validates, who tests: whole patients, nested over fractions, the same for every arm."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import accumulate

from datasets.errors import DataError
from datasets.patients import (
    Members,
    count_images,
    deal_folds,
    draw_images,
    members_of,
    patient_order,
    rows_of,
)
from datasets.sample import Index, Offer
from datasets.settings import FileList, SplitSettings, TestImages, TestShare, ValidationShare

__all__ = ["Split", "fingerprint", "patient_order", "pretraining_split", "target_split"]


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
) -> Split:
    """Split the target data for one fold, seed and amount of labels.

    `labelled` is a share of the training images (float) or a number of images (int). Rows with faults take no
    part. Raises `DataError` where the settings leave nobody to test or to train.
    """
    seed = seed if settings.seed is None else settings.seed
    members, everyone = _ordered(index, offer, seed)
    _check_named(index, settings, members, offer)
    tested, part = _held_out(index, settings, members, offer=offer, folds=folds, fold=fold, seed=seed)
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
    tested = set() if settings.test == "folds" else _fixed_test(index, settings, members, offer)
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
    index: Index, settings: SplitSettings, members: Members, *, offer: Offer, folds: int, fold: int, seed: int
) -> tuple[set[str], Sequence[str]]:
    """Return the patients that test, and those whose turn it is to validate where folds do."""
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
        parts = _parts(index, offer, frozenset(), folds, seed)
        return set(parts[fold]), parts[(fold + 1) % folds]
    tested = _fixed_test(index, settings, members, offer)
    if not by_fold:
        return tested, ()
    return tested, _parts(index, offer, frozenset(tested), folds, seed)[fold]


# A study draws the same order and folds for every amount of labels: thousands of times.
@lru_cache(maxsize=8)
def _ordered(index: Index, offer: Offer, seed: int) -> tuple[Members, tuple[str, ...]]:
    """Return the patients with annotation: their rows, and their order."""
    usable = _usable(index, offer)
    return members_of(index, usable), patient_order(index, usable, seed)


@lru_cache(maxsize=8)
def _parts(index: Index, offer: Offer, tested: frozenset[str], folds: int, seed: int) -> list[list[str]]:
    """Return the folds of all patients with annotation but those of a fixed test set."""
    members = members_of(index, _usable(index, offer))
    others = {patient: rows for patient, rows in members.items() if patient not in tested}
    return deal_folds(index, others, folds=folds, seed=seed)


def _fixed_test(index: Index, settings: SplitSettings, members: Members, offer: Offer | None) -> set[str]:
    """Return the patients of the test set that all seeds and folds share."""
    test = settings.test
    if isinstance(test, TestImages | TestShare):
        tested = _drawn(index, test, members, settings.seed or 0)
    else:
        tested = members.keys() & {index.patients[row] for row in _named(index, test, "test")}
    if not tested:
        raise DataError(f"split.test ({test}) holds no image with {offer or 'pixels'}; allowed: one or more; change it")
    return tested


def _drawn(index: Index, test: TestImages | TestShare, members: Members, seed: int) -> set[str]:
    rows = rows_of(members, members)
    alone: set[str] = set()
    if isinstance(test, TestImages):
        wanted = test.images
    else:
        wanted = max(1, round(test.share * len(rows)))
        if test.and_ == "single_case_categories":
            cases = Counter([index.categories[row] for row in rows])
            alone = {index.patients[row] for row in rows if cases[index.categories[row]] == 1}
    order = [patient for patient in patient_order(index, rows, seed) if patient not in alone]
    return alone | draw_images(order, members, wanted)


def _named(index: Index, choice: object, part: str) -> list[int]:
    """Return the rows that a list of image ids, or the publisher, puts into a part."""
    if choice == "official":
        return [row for row, official in enumerate(index.official) if official == part]
    if not isinstance(choice, FileList):
        return []
    path = choice.list
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {path} cannot be read ({error}); allowed: a text file; name another") from error
    ids = [line.strip() for line in lines if line.strip()]
    position = {image: row for row, image in enumerate(index.ids)}
    for image in ids:
        if image not in position:
            raise DataError(f"list {path} names unknown image {image}; allowed: ids of the data; correct it")
    return [position[image] for image in ids]


def _check_named(index: Index, settings: SplitSettings, members: Members, offer: Offer) -> None:
    """Refuse parts of the target data that miss annotation or tear a patient apart."""
    for part, choice in (("test", settings.test), ("validation", settings.validation)):
        named = set(_named(index, choice, part))
        for row in sorted(named):
            image, patient = index.ids[row], index.patients[row]
            if isinstance(choice, FileList) and row not in members.get(patient, ()):
                raise DataError(
                    f"split.{part} names image {image}, which has a fault or no {offer}; "
                    "allowed: usable images; drop its line"
                )
            if not named.issuperset(members.get(patient, ())):
                raise DataError(
                    f"patient {patient} lies on both sides of split.{part}; allowed: whole patients; "
                    "name all images of a patient, or let the split be drawn"
                )


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
    return {index.patients[row] for row in _named(index, validation, "validation")}.intersection(order)


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
