"""Patients and published parts of images that are named by patterns, tables and lists."""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

from datasets.decoding.text import normal, read_lines
from datasets.errors import DataError
from datasets.sources.common.published import PublishedCase
from datasets.sources.common.tables import check_patients, read_table
from datasets.sources.folder.images import named
from datasets.sources.folder.patterns import Part
from datasets.sources.folder.settings import PatientTable

SHOWN_NAMES: Final = 3
"""Number of names in a message."""


def patients_by_pattern(patterns: Sequence[str], names: Mapping[str, str], root: Path) -> dict[str, str]:
    """Return the patient of each image: the first group, or the match, of the first pattern that its name has.

    Args:
        patterns: Regular expressions.
        names: The name of each image.
        root: Folder of the data set, for messages.

    Raises:
        DataError: No pattern matches a name.
    """
    patients = {}
    for image, name in names.items():
        found = next(filter(None, (re.search(pattern, name) for pattern in patterns)), None)
        patient = "" if found is None else next((group for group in found.groups() if group), found.group())
        if not patient:
            raise DataError(
                f"{root}: patients ({', '.join(patterns)}) does not match the name '{name}'; allowed: a pattern that "
                "matches each name; extend it, or give a list of patterns"
            )
        patients[image] = normal(patient)
    return patients


def patients_in_table(table: PatientTable, ids: Mapping[str, str], images: Sequence[str], root: Path) -> dict[str, str]:
    """Return the patient of each image from a table; lines of other images are skipped.

    Raises `DataError` for images without a patient or with two.
    """
    path = root / table.table
    patients: dict[str, str] = {}
    places = []
    for line in read_table(path, (table.image, table.patient))[1]:
        image, patient = named(line[table.image], ids) if line[table.image] else None, normal(line[table.patient])
        if image is None or not patient:
            continue
        if patients.setdefault(image, patient) != patient:
            raise DataError(
                f"{line.place}: {image} has the patient '{patient}', and '{patients[image]}' in an earlier line; "
                "allowed: one patient an image; correct one"
            )
        places.append((line.place, patient))
    missing = [image for image in images if image not in patients]
    if missing:
        raise DataError(
            f"{path} names no patient of {len(missing)} images ({', '.join(missing[:SHOWN_NAMES])}); allowed: one for "
            f"each image, in the columns '{table.image}' and '{table.patient}'; complete it or correct `patients`"
        )
    check_patients(places)
    return patients


def listed_parts(lists: Mapping[Part, str], ids: Mapping[str, str], root: Path) -> dict[str, Part]:
    """Return the published part of each image that a list names.

    Raises `DataError` for names of no image, and images in two lists.
    """
    parts: dict[str, Part] = {}
    for part, file in lists.items():
        for line in read_lines(root / file):
            image = named(line, ids)
            if image is None:
                raise DataError(
                    f"{root / file} names '{line}', which is no image; allowed: names of images, such as "
                    f"{min(ids.values(), default='none')}, one per line; correct the line"
                )
            if parts.setdefault(image, part) != part:
                raise DataError(
                    f"{root / file} names {image}, which is also in {lists[parts[image]]}; allowed: one list an image; "
                    "remove one line"
                )
    return parts


def first_cases(cases: Sequence[PublishedCase], limit: int) -> list[PublishedCase]:
    """Return at least `limit` cases of whole patients, in an order of patients that depends on their names alone."""
    by_patient: dict[str, list[PublishedCase]] = {}
    for case in cases:
        by_patient.setdefault(case.patient or f"image {case.id}", []).append(case)
    order = sorted(by_patient, key=lambda patient: blake2b(f"limit {patient}".encode(), digest_size=16).digest())
    chosen: list[PublishedCase] = []
    for patient in order:
        if len(chosen) >= limit:
            break
        chosen += by_patient[patient]
    return chosen
