"""Indian Diabetic Retinopathy Image Dataset (Porwal et al. 2018, doi 10.3390/data3030025): fundus photographs.

Three parts with separate images, one of which is selected: `A. Segmentation`, `B. Disease Grading`,
`C. Localization`. Each has `1. Original Images` and ground truths, divided into training and test set.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets.cache.manifest import Listing
from datasets.errors import DataError
from datasets.settings import FileSettings
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, MaskRuns, PublishedCase, PublishedDataset
from datasets.sources.common.tables import Line, read_table

Challenge = Literal["segmentation", "grading", "localisation"]
Official = Literal["train", "test"]
FOLDERS: Mapping[Challenge, str] = {
    "segmentation": "A. Segmentation",
    "grading": "B. Disease Grading",
    "localisation": "C. Localization",
}
IMAGES = "1. Original Images"
MASKS = "2. All Segmentation Groundtruths"
SETS: Mapping[Official, str] = {"train": "a. Training Set", "test": "b. Testing Set"}
CLASSES = {
    "Microaneurysms": ("1. Microaneurysms", "MA"),
    "Haemorrhages": ("2. Haemorrhages", "HE"),
    "Hard Exudates": ("3. Hard Exudates", "EX"),
    "Soft Exudates": ("4. Soft Exudates", "SE"),
    "Optic Disc": ("5. Optic Disc", "OD"),
}
"""Folder and suffix of the mask files of each class."""
DISC = "Optic Disc"
"""Lesions without a file are absent from the image; the disc is always present, so its file must exist."""
GRADES = {"Retinopathy grade": ("retinopathy", 4), "Risk of macular edema": ("macular edema", 2)}
"""Name and highest grade of each column."""
GRADE_COLUMNS = ("Image name", *GRADES)
LABELS = tuple(f"{name} >= {grade}" for name, highest in GRADES.values() for grade in range(1, highest + 1))
GRADE_TABLES: Mapping[Official, str] = {
    "train": "2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv",
}
CENTRE_TABLES: Mapping[Official, Mapping[str, str]] = {
    "train": {
        "Optic Disc": "2. Groundtruths/1. Optic Disc Center Location/a. IDRiD_OD_Center_Training Set_Markups.csv",
        "Fovea": "2. Groundtruths/2. Fovea Center Location/IDRiD_Fovea_Center_Training Set_Markups.csv",
    },
    "test": {
        "Optic Disc": "2. Groundtruths/1. Optic Disc Center Location/b. IDRiD_OD_Center_Testing Set_Markups.csv",
        "Fovea": "2. Groundtruths/2. Fovea Center Location/IDRiD_Fovea_Center_Testing Set_Markups.csv",
    },
}
CENTRE_COLUMNS = ("Image No", "X- Coordinate", "Y - Coordinate")


class IdridSettings(FileSettings):
    """`part` selects masks (segmentation), labels (grading) or centres (localisation).

    Grades are ordinal labels: `retinopathy >= 2` is 1 for the grades 2, 3 and 4.
    """

    source: Literal["idrid"] = "idrid"
    part: Challenge

    @property
    def collection(self) -> str:
        """Namespace of patients. Patients are not published, so each image counts as one."""
        return "idrid"


class IdridSource(FileSource):
    """Source of `IdridSettings`. Ids are `train/IDRiD_001`, `test/IDRiD_001`: both sets count from 1.

    Lines without an image file are skipped. A lesion without a mask file is absent from the image. Classes without any
    file are not classes of the data set, so a subset of the masks is enough.
    """

    folders = {IMAGES: "image", MASKS: "foreground"}  # noqa: RUF012

    def __init__(self, settings: IdridSettings) -> None:
        super().__init__(settings)
        self._root = settings.root / FOLDERS[settings.part]
        self._part = settings.part

    def _published(self, listing: Listing) -> PublishedDataset:
        if self._part == "segmentation":
            return self._segmentation(listing)
        annotated = self._graded if self._part == "grading" else self._centred
        cases = [case for official in SETS for case in annotated(official, _unannotated_cases(official, listing))]
        return PublishedDataset(cases=cases, labels=LABELS if self._part == "grading" else ())

    def _segmentation(self, listing: Listing) -> PublishedDataset:
        classes_by_set = {
            official: [name for name in CLASSES if listing.inside(_mask_folder(official, name))] for official in SETS
        }
        classes = tuple(name for name in CLASSES if any(name in names for names in classes_by_set.values()))
        chosen = [name for name in self._settings.classes or classes if name in classes]
        cases = list[PublishedCase]()
        for official, names in classes_by_set.items():
            cases_of_set, missing = (
                _unannotated_cases(official, listing),
                [name for name in chosen if name not in names],
            )
            if cases_of_set and names and missing:
                raise DataError(
                    f"{self._root / MASKS / SETS[official]} has no masks of {missing}, which the other set has; "
                    "allowed: the same classes in both; restore them or leave them out with `classes`"
                )
            cases += [replace(case, masks=tuple(_masks(case, names, listing))) for case in cases_of_set]
        _check_masks(cases, listing, disc=DISC in chosen)
        return PublishedDataset(cases=cases, classes=classes)

    def _graded(self, official: Official, cases: Sequence[PublishedCase]) -> Iterator[PublishedCase]:
        grades = {name: _grades(line) for name, line in self._lines(GRADE_TABLES[official], GRADE_COLUMNS, cases)}
        for case in cases:
            case_grades = grades.get(_stem(case))
            yield (
                replace(case, labels=_ordinal(case_grades), category=f"retinopathy {case_grades[0]}")
                if case_grades
                else case
            )

    def _centred(self, official: Official, cases: Sequence[PublishedCase]) -> Iterator[PublishedCase]:
        centres: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
        for structure, table in CENTRE_TABLES[official].items():
            for name, line in self._lines(table, CENTRE_COLUMNS, cases):
                centres[name].append((structure, line.number(CENTRE_COLUMNS[1]), line.number(CENTRE_COLUMNS[2])))
        for case in cases:
            yield replace(case, centres=tuple(centres[_stem(case)]))

    def _lines(self, table: str, columns: Sequence[str], cases: Sequence[PublishedCase]) -> Iterator[tuple[str, Line]]:
        """Yield (image, line). A set without images needs no table; published tables end with empty lines."""
        seen = {""}
        for line in _read(self._root / table, columns) if cases else ():
            name = line[columns[0]]
            if name and name in seen:
                raise DataError(f"{line.place}: {name} is listed twice; allowed: one line an image; remove one")
            if name:
                yield name, line
            seen.add(name)


def _read(path: Path, columns: Sequence[str]) -> list[Line]:
    """Read the columns of a table, ignoring spaces around column names, which some copies have."""
    header, lines = read_table(path, ())
    spelled = {name.strip(): name for name in reversed(header)}
    missing = [column for column in columns if column not in spelled]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}; allowed: a header with {list(columns)}; restore its first line"
        )
    return [Line(place=line.place, values={name: line[spelled[name]] for name in columns}) for line in lines]


def _unannotated_cases(official: Official, listing: Listing) -> list[PublishedCase]:
    """Return the cases of one set without annotation."""
    paths = listing.inside(f"{IMAGES}/{SETS[official]}")
    named = [(f"{official}/{PurePosixPath(path).stem}", path) for path in paths]
    return [PublishedCase(id=name, path=path, official=official) for name, path in named]


def _stem(case: PublishedCase) -> str:
    return case.id.partition("/")[2]


def _mask_folder(official: Official, name: str) -> str:
    return f"{MASKS}/{SETS[official]}/{CLASSES[name][0]}"


def _masks(case: PublishedCase, drawn: Sequence[str], listing: Listing) -> Iterator[MaskFile | MaskRuns]:
    """Yield a mask for each class annotated in the set of the image: its file, or an empty mask."""
    official: Official = "train" if case.official == "train" else "test"
    for name in drawn:
        path = f"{_mask_folder(official, name)}/{_stem(case)}_{CLASSES[name][1]}.tif"
        yield MaskFile(path=path, name=name) if path in listing.files else MaskRuns(name=name, runs=b"")


def _check_masks(cases: Sequence[PublishedCase], listing: Listing, *, disc: bool) -> None:
    """Raise `DataError` for masks without an image, and for images without a disc mask if others have one."""
    used = {mask.path for case in cases for mask in case.masks if isinstance(mask, MaskFile)}
    unused = sorted(set(listing.inside(MASKS)) - used)
    if unused:
        raise DataError(
            f"{listing.root / unused[0]} belongs to no image ({len(unused)} such files); allowed: the name of an image "
            "and its class's ending; rename it, or add the image"
        )
    lost = [case.id for case in cases if any(mask.name == DISC and isinstance(mask, MaskRuns) for mask in case.masks)]
    if disc and lost:
        raise DataError(
            f"{listing.root / MASKS} has no {DISC} of {lost[0]} ({len(lost)} such images); allowed: one of every image "
            "of a set that has any; restore it, or leave the class out with `classes`"
        )


def _grades(line: Line) -> tuple[int, ...]:
    grades = []
    for column, (_, highest) in GRADES.items():
        allowed = [str(grade) for grade in range(highest + 1)]
        if line[column] not in allowed:
            raise DataError(
                f"{line.place}: {column} is '{line[column]}'; allowed: {', '.join(allowed)}; correct the line"
            )
        grades.append(int(line[column]))
    return tuple(grades)


def _ordinal(grades: Sequence[int]) -> tuple[float, ...]:
    """Return the ordinal labels: 1 for every grade that is reached, in the order of `LABELS`."""
    highest = [highest for _, highest in GRADES.values()]
    return tuple(
        float(reached >= grade) for reached, top in zip(grades, highest, strict=True) for grade in range(1, top + 1)
    )
