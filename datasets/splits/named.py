"""Parts of data that a study file or its publisher names: fixed test sets, lists of images."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from datasets.decoding.decode import SUFFIXES
from datasets.decoding.text import normal, read_lines
from datasets.errors import DataError
from datasets.settings import FileList, SplitSettings, TestImages, TestShare
from datasets.source import Index, Offer
from datasets.splits.patients import Members, draw_images, patient_order, rows_of


def fixed_test(index: Index, settings: SplitSettings, members: Members, offer: Offer | None) -> set[str]:
    """Return the patients of the test set that all seeds and folds share."""
    test = settings.test
    if isinstance(test, TestImages | TestShare):
        tested = _drawn(index, test, members, settings.seed or 0)
    else:
        tested = members.keys() & {index.patients[row] for row in named_rows(index, test, "test")}
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


def named_rows(index: Index, choice: object, part: str) -> list[int]:
    """Return the rows that a list of image ids, or the publisher, puts into a part."""
    if choice == "official":
        return [row for row, official in enumerate(index.official) if official == part]
    if not isinstance(choice, FileList):
        return []
    position = {normal(image): row for row, image in enumerate(index.ids)}
    return [_named_row(normal(name), position, choice.list) for name in read_lines(choice.list)]


def _named_row(name: str, position: Mapping[str, int], path: Path) -> int:
    """Return the row of an image, which a list may name with the ending of its file."""
    stem, dot, suffix = name.rpartition(".")
    for known in (name, stem) if f"{dot}{suffix}".lower() in SUFFIXES else (name,):
        if known in position:
            return position[known]
    raise DataError(
        f"list {path} names the image {name}, which the data lacks; allowed: ids of the data, such as "
        f"{next(iter(position), 'none')}; correct it"
    )


def check_named(index: Index, settings: SplitSettings, members: Members, offer: Offer) -> None:
    """Refuse parts of the target data that miss annotation or tear a patient apart."""
    for part, choice in (("test", settings.test), ("validation", settings.validation)):
        named = set(named_rows(index, choice, part))
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
