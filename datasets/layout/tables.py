"""Files beside images that name classes, patients and published parts."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from datasets.decoding.decode import stem_of
from datasets.decoding.text import read_text
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.sources.common.class_ids import NO_CLASS, RESERVED
from datasets.sources.folder.images import named
from datasets.sources.folder.patterns import PARTS, Part

CLASS_FILES: Final = frozenset(
    {"labelmap", "label_map", "classes", "class_names", "class_dict", "labels", "class_dict_seg"}
)
UNLABELLED_NAMES: Final = frozenset({"ignore", "void", "unlabeled", "unlabelled"})
"""Names, in small letters, of values of pixels without a label."""
MAX_BYTES: Final = 64 * 2**20
"""Maximum size of a table that is read."""
PATIENT_COLUMN: Final = re.compile(
    r"(patient|subject|person|participant)[ _-]?(id|no|nr|name|number)?|pid", re.IGNORECASE
)
LIST_NAME: Final = re.compile(
    rf"({'|'.join(PARTS)})(?:[ _-]?(?:list|files?|ids?|images?|set|split|names?))?", re.IGNORECASE
)
_COLOUR: Final = re.compile(r"(.+?)[:,]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?:[:,].*)?")
MIN_SHARE: Final = 0.95
"""Minimum share of images that a table must name."""


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Names of classes that a file states, by id and by colour.

    Attributes:
        file: Its path.
        names: All classes.
        by_id: Classes by id.
        by_colour: Classes by colour, each the first one of its colour.
        background: The colour that is named as the background.
        unlabelled: Colours of pixels without a label.
        check: What a user should check.
    """

    file: str = ""
    names: tuple[str, ...] = ()
    by_id: Mapping[int, str] = field(default_factory=dict)
    by_colour: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    background: tuple[int, int, int] | None = None
    unlabelled: tuple[tuple[int, int, int], ...] = ()
    check: tuple[str, ...] = ()


def read_class_table(files: Files) -> ClassTable:
    """Return the first table of classes, an empty one if there is none.

    Lines are `name`, `id name` or `name:r,g,b`, as in CVAT's labelmap.txt and in class_dict.csv.
    """
    for path in files.named(".txt", ".csv", ".names"):
        if stem_of(path).lower() not in CLASS_FILES:
            continue
        lines = [line.strip() for line in (_text(files.root / path) or "").splitlines() if line.strip()]
        lines = [line for line in lines if line[0] != "#"]
        coloured = [match for match in map(_COLOUR.fullmatch, lines) if match]
        if coloured and len(coloured) >= len(lines) - 1:
            return _coloured_table(path, coloured)
        if lines and len(set(lines)) == len(lines) <= 254 and all("," not in line for line in lines):
            return _plain_table(path, lines)
    return ClassTable()


def _coloured_table(path: str, lines: Sequence[re.Match[str]]) -> ClassTable:
    """Return the classes of lines with a name and a colour; the number of a line may be an id."""
    names = [match[1].strip() for match in lines]
    colours = [(int(match[2]), int(match[3]), int(match[4])) for match in lines]
    first: dict[tuple[int, int, int], str] = {}
    for colour, name in zip(colours, names, strict=True):
        first.setdefault(colour, name)
    check = [f"whether the ids in masks without colours are the numbers of the lines of {path}, from 0"]
    repeated = sorted({colour for colour in colours if colours.count(colour) > 1})
    if repeated:
        shared = ", ".join(str(list(colour)) for colour in repeated)
        check.append(f"{path} has several names for the colours {shared}: the first ones are used")
    return ClassTable(
        file=path,
        names=tuple(name for name in dict.fromkeys(names) if _is_class(name)),
        by_id={number: name for number, name in enumerate(names) if _is_class(name)},
        by_colour={colour: name for colour, name in first.items() if _is_class(name)},
        background=next((colour for colour, name in first.items() if _word(name) in NO_CLASS - {"ignore"}), None),
        unlabelled=tuple(sorted(colour for colour, name in first.items() if _word(name) in UNLABELLED_NAMES)),
        check=tuple(check),
    )


def _word(name: str) -> str:
    return name.strip("_").casefold()


def _plain_table(path: str, lines: Sequence[str]) -> ClassTable:
    numbered = [re.fullmatch(r"(\d+)[\s:=;]+(.+)", line) for line in lines]
    if all(numbered):
        by_id = {int(match[1]): match[2].strip() for match in numbered if match}
    else:
        first = 0 if lines[0].strip("_").casefold() in NO_CLASS else 1
        by_id = dict(enumerate(lines, first))
    by_id = {number: name for number, name in by_id.items() if number > 0 and _is_class(name)}
    return ClassTable(file=path, names=tuple(by_id.values()), by_id=by_id)


def _is_class(name: str) -> bool:
    return _word(name) not in {*NO_CLASS, *RESERVED, *UNLABELLED_NAMES}


def _text(path: Path) -> str | None:
    """Return the text of a small file, None if it cannot be read."""
    try:
        return read_text(path) if path.stat().st_size <= MAX_BYTES else None
    except (DataError, OSError):
        return None


def part_lists(files: Files, ids: Mapping[str, str]) -> dict[Part, str]:
    """Return the files that list the images of a published part; each of their lines names an image."""
    lists: dict[Part, str] = {}
    for path in files.named(".txt", ".lst"):
        match = LIST_NAME.fullmatch(stem_of(path))
        if match is None or PARTS[match[1].lower()] in lists:
            continue
        lines = [line.strip() for line in (_text(files.root / path) or "").splitlines() if line.strip()]
        if lines and all(named(line, ids) is not None for line in lines):
            lists[PARTS[match[1].lower()]] = path
    members = [
        named(line, ids)
        for path in lists.values()
        for line in (_text(files.root / path) or "").split("\n")
        if line.strip()
    ]
    return lists if len(set(members)) == len(members) else {}


def patient_table(files: Files, ids: Mapping[str, str]) -> dict[str, str] | None:
    """Return the key `patients` for a CSV file whose columns name image and patient of nearly all images."""
    images = set(ids.values())
    for path in files.named(".csv"):
        text = _text(files.root / path)
        if text is None:
            continue
        try:
            header, *lines = csv.reader(text.splitlines()) if text.strip() else [[]]
        except csv.Error:
            continue
        columns = [name.strip() for name in header]
        rows = [dict(zip(columns, map(str.strip, line), strict=False)) for line in lines]
        patient = next((name for name in columns if PATIENT_COLUMN.fullmatch(name)), None)
        if patient is None:
            continue
        for column in columns:
            found = {named(str(row.get(column) or "-"), ids) for row in rows if row.get(patient)} - {None}
            if column != patient and images and len(found) == len(images):
                return {"table": path, "image": column, "patient": patient}
    return None
