"""Tables of patients and lists of published parts that settings do not use."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from datasets.decoding.decode import stem_of
from datasets.decoding.text import read_text
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.layout.tables import LIST_NAME, MAX_BYTES, PATIENT_COLUMN
from datasets.sources.folder.images import ImageFile, named, path_names
from datasets.sources.folder.patterns import Pattern, best

DELIMITERS: Final = (",", ";", "\t")


def unused_tables(files: Files, settings: Mapping[str, object]) -> Iterator[str]:
    """Yield a sentence for each table with a column of patients, and each list of a part, that settings do not name.

    Args:
        files: The files of the data set.
        settings: Keys of the data set in a study file; only those of images and masks in folders are examined.
    """
    if settings["source"] != "folder":
        return
    used = str({key: settings[key] for key in ("patients", "lists") if key in settings})
    ids = _names(files, settings)
    count = len(set(ids.values()))
    for path in files.named(".csv", ".tsv", ".txt", ".lst"):
        lines = _lines(files.root / path)
        if not lines or f"'{path}'" in used:
            continue
        if "'table'" not in used and "{part}" not in str(settings["images"]):
            yield from _patients(path, lines, ids, count)
        if LIST_NAME.fullmatch(stem_of(path)) and "{part}" not in str(settings["images"]):
            listed = sum(named(line, ids) is not None for line in lines)
            yield (
                f"{path} may list a published part, and {listed} of its {len(lines)} lines name an image; not used, as "
                "`lists` needs an image in each line, in one list only"
            )


def _patients(path: str, lines: list[str], ids: Mapping[str, str], count: int) -> Iterator[str]:
    delimiter = max(DELIMITERS, key=lines[0].count)
    try:
        header, *rows = [[field.strip() for field in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error:
        return
    column = next((place for place, name in enumerate(header) if PATIENT_COLUMN.fullmatch(name)), None)
    if column is None:
        return
    rows = [row for row in rows if len(row) > column and row[column]]
    found = [
        len({named(row[place], ids) for row in rows if row[place : place + 1] not in ([], [""])} - {None})
        for place in range(len(header))
        if place != column
    ]
    reason = "`patients` needs each image" if delimiter == "," else "`patients` needs a table separated by commas"
    yield f"{path} has the column {header[column]} for {max(found, default=0)} of {count} images; not used, as {reason}"


def _lines(path: Path) -> list[str]:
    """Return the lines of a small text file, none if it cannot be read."""
    try:
        text = read_text(path) if path.stat().st_size <= MAX_BYTES else ""
    except (DataError, OSError):
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _names(files: Files, settings: Mapping[str, object]) -> Mapping[str, str]:
    """Return the id of each image by the names that tables may use."""
    images = Pattern(str(settings["images"]))
    annotators = settings.get("annotators")
    texts = annotators.values() if isinstance(annotators, Mapping) else [settings["masks"]]
    patterns = [*(Pattern(str(text)) for text in texts), images]
    paths = [path for path in files.images if best(patterns, path) == images]
    found = [(path, images.match(path)) for path in paths]
    return path_names([ImageFile(id=match.key, path=path) for path, match in found if match is not None])
