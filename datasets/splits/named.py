"""Splits defined by a study file or the publisher: fixed test sets, lists of images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, suffix_of
from datasets.decoding.text import normal, read_lines
from datasets.errors import DataError
from datasets.settings import FileList, SplitSettings, TestImages, TestShare
from datasets.source import AnnotationKind, Index
from datasets.splits.patients import Members, draw_images, patient_order, rows_of


def fixed_test(
    index: Index, settings: SplitSettings, members: Members, annotation_kind: AnnotationKind | None
) -> set[str]:
    """Return the patients of the fixed test set, which is the same for all seeds and folds."""
    test = settings.test
    if isinstance(test, TestImages | TestShare):
        test_patients = _draw_test_patients(index, test, members, settings.seed or 0)
    else:
        test_patients = members.keys() & {index.patients[row] for row in named_rows(index, test, "test")}
    if not test_patients:
        raise DataError(
            f"split.test ({test}) holds no image with {annotation_kind or 'pixels'}; allowed: one or more; change it"
        )
    return test_patients


def _draw_test_patients(index: Index, test: TestImages | TestShare, members: Members, seed: int) -> set[str]:
    rows = rows_of(members, members)
    single_cases: set[str] = set()
    if isinstance(test, TestImages):
        images = test.images
    else:
        images = max(1, round(test.share * len(rows)))
        if test.and_ == "single_case_categories":
            cases = Counter([index.categories[row] for row in rows])
            single_cases = {index.patients[row] for row in rows if cases[index.categories[row]] == 1}
    order = [patient for patient in patient_order(index, rows, seed) if patient not in single_cases]
    return single_cases | draw_images(order, members, images)


def named_rows(index: Index, choice: object, part: str) -> list[int]:
    """Return the rows assigned to a part by a list of image ids or by the publisher."""
    if choice == "official":
        return [row for row, official in enumerate(index.official) if official == part]
    if not isinstance(choice, FileList):
        return []
    rows_by_name: dict[str, list[int]] = {}
    for row, image in enumerate(index.ids):
        for name in filter(None, (image, index.volume(row))):
            rows_by_name.setdefault(normal(name), []).append(row)
    return [row for name in read_lines(choice.list) for row in _named(normal(name), rows_by_name, choice.list)]


def validation_patients(index: Index, settings: SplitSettings) -> frozenset[str]:
    """Return the patients that a list or the publisher names for validation, at any labelled amount; else none."""
    return frozenset(index.patients[row] for row in named_rows(index, settings.validation, "validation"))


def _named(name: str, rows_by_name: Mapping[str, Sequence[int]], path: Path) -> Sequence[int]:
    """Return the rows of an image or a volume, which may be listed with or without its file suffix."""
    suffix = suffix_of(name)
    stem = name[: -len(suffix)] if suffix in SUFFIXES | VOLUME_SUFFIXES else name
    rows = rows_by_name.get(name) or rows_by_name.get(stem)
    if rows is None:
        raise DataError(
            f"list {path} names the image {name}, which the data lacks; allowed: ids of the data, such as "
            f"{next(iter(rows_by_name), 'none')}; correct it"
        )
    return rows


def check_named(index: Index, settings: SplitSettings, members: Members, annotation_kind: AnnotationKind) -> None:
    """Raise `DataError` for parts of the target data with missing annotation or with divided patients."""
    for part, choice in (("test", settings.test), ("validation", settings.validation)):
        named = set(named_rows(index, choice, part))
        for row in sorted(named):
            image, patient = index.ids[row], index.patients[row]
            if isinstance(choice, FileList) and row not in members.get(patient, ()):
                raise DataError(
                    f"split.{part} names image {image}, which has a fault or no {annotation_kind}; "
                    "allowed: usable images; drop its line"
                )
            if not named.issuperset(members.get(patient, ())):
                raise DataError(
                    f"patient {patient} lies on both sides of split.{part}; allowed: whole patients; "
                    "name all images of a patient, or let the split be drawn"
                )
