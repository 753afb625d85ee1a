"""Strict reading of CSV tables; errors name file and line."""

import csv
import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import StringIO
from pathlib import Path

from datasets.decoding.text import read_text
from datasets.errors import DataError

MISSING = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "#n/a", "-", "--", "?", "unknown", "missing"})
"""Common notations of a missing value; case-insensitive."""
WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?", re.ASCII)
ROUNDED_NUMBER = re.compile(r"\d(?:\.\d+)?[Ee]\+\d+", re.ASCII)
"""Notation of spreadsheets for numbers with more than 11 digits."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table; `place` is file and line number for messages."""

    place: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """Return the stripped text of a column, "" if the column is missing."""
        return (self.values.get(column) or "").strip()

    def name(self, column: str) -> str:
        """Return a column that must not be empty, or raise `DataError`."""
        if self[column].casefold() in {"", *MISSING}:
            raise DataError(f"{self.place}: {column} is '{self[column]}'; allowed: a name; fill it in")
        return self[column]

    def number(self, column: str) -> float:
        """Return a column as a finite number, or raise `DataError`."""
        try:
            value = float("nan") if "_" in self[column] else float(self[column])  # Python parses 1_0 as 10
        except ValueError:
            value = float("nan")
        if value - value != 0:
            raise DataError(
                f"{self.place}: {column} is '{self[column]}'; allowed: a number; correct or remove the line"
            )
        return value

    def tag(self, column: str) -> float:
        """Return 1.0, 0.0, or NaN for an empty (unknown) label, or raise `DataError`."""
        known = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": float("nan")}
        if self[column] not in known:
            raise DataError(
                f"{self.place}: {column} is '{self[column]}'; allowed: 1 (present), 0 (absent), empty (unknown); "
                "correct the line"
            )
        return known[self[column]]


def read_table(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> tuple[tuple[str, ...], list[Line]]:
    """Return the stripped header and the lines of a CSV file with at least `columns`.

    Raises `DataError`, also for lines whose number of fields differs from the header, as values would be shifted, and
    for columns that differ from an `optional` one in case only. Empty lines, with or without commas, are skipped.
    """
    reader = csv.reader(StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is no CSV ({error}); allowed: CSV; correct it") from error
    header = [name.strip() for name in rows[0][1]] if rows else []
    if header and columns and not set(columns).intersection(header) and any(map(_is_number, header)):
        raise DataError(
            f"{path} lacks the header {list(columns)}; allowed: names of columns in the first line, found {header}; "
            "add it"
        )
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise DataError(f"{path} has the column '{repeated[0]}' twice; allowed: each column once; rename one")
    missing = [column for column in columns if column not in header]
    if missing:
        separated = len(header) == 1 and (";" in header[0] or "\t" in header[0])
        remedy = "separate its values with commas, and write decimal points" if separated else "correct its first line"
        raise DataError(
            f"{path} lacks the columns {missing}; allowed: a header with {list(columns)}, found {header}; {remedy}"
        )
    misspelled = [name for name in header if name not in optional and name.casefold() in optional]
    if misspelled:
        raise DataError(
            f"{path} has the column '{misspelled[0]}', which is not read; allowed: {', '.join(optional)}, in small "
            "letters; rename it"
        )
    return tuple(header), [_line(f"{path} line {number}", header, row) for number, row in rows[1:]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(place: str, header: Sequence[str], row: Sequence[str]) -> Line:
    named = max((place for place, name in enumerate(header, 1) if name), default=0)  # spreadsheets add empty columns
    if len(row) < named or any(row[len(header) :]):
        raise DataError(
            f"{place} has {len(row)} fields; allowed: {named}, as the header; put values that hold a comma in quotes"
        )
    return Line(place=place, values=dict(zip(header, row, strict=False)))


def check_patients(named: Iterable[tuple[str, str]]) -> None:
    """Raise `DataError` for patient ids that are missing values, rounded numbers, or written in two ways.

    Rounding by a spreadsheet would merge several patients. `named` are pairs of (file and line, patient).
    """
    written: dict[str, tuple[str, str]] = {}
    for place, name in named:
        if ROUNDED_NUMBER.fullmatch(name):
            raise DataError(
                f"{place}: patient is '{name}', a number that a spreadsheet has rounded; allowed: all of its digits; "
                "export the column as text"
            )
        if name.casefold() in MISSING:
            raise DataError(
                f"{place}: patient is '{name}', which stands for a missing value; allowed: a name for each patient; "
                "fill it in"
            )
        first_place, first_name = written.setdefault(_number(name), (place, name))
        if first_name != name:
            raise DataError(
                f"{place}: patient is '{name}', and '{first_name}' in {first_place}; allowed: one way to write a "
                "number; correct one"
            )


def _number(name: str) -> str:
    """Normalise integers, so that 12, 012 and 12.0 are the same patient; return other names unchanged."""
    match = WHOLE_NUMBER.fullmatch(name)
    return match[1] if match else name


def by_id(lines: Sequence[Line], column: str, suffix: str = "") -> dict[str, Line]:
    """Return the lines by id without the suffix. Raises `DataError` for duplicate ids."""
    lines_by_id: dict[str, Line] = {}
    for line in lines:
        if not line[column].endswith(suffix) or line[column] == suffix:
            raise DataError(f"{line.place}: {column} is '{line[column]}'; allowed: NAME{suffix}; correct the line")
        name = line[column].removesuffix(suffix)
        if name in lines_by_id:
            raise DataError(f"{line.place}: {line[column]} is listed twice; allowed: one line an id; remove one")
        lines_by_id[name] = line
    return lines_by_id


def require_images(names: Iterable[str], available: Container[str], table: Path) -> None:
    """Raise `DataError` if images named by a table are missing."""
    missing = [name for name in names if name not in available]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} images that are not there ({missing[0]}); allowed: all of them; complete "
            "the download or take them out of the table"
        )


def choose(known: Sequence[str], chosen: Sequence[str] | None, key: str, location: object) -> tuple[str, ...]:
    """Return the chosen names, all if None is given. Raises `DataError` for unknown names."""
    unknown = [name for name in chosen or () if name not in known]
    if unknown:
        raise DataError(f"{key}: {unknown} not in {location}; allowed: {list(known)}; choose among these")
    return tuple(known if chosen is None else chosen)


def digest(*parts: object) -> str:
    """Return the BLAKE2b-128 hash of texts, numbers and lists of them."""
    return blake2b(json.dumps(parts, ensure_ascii=False).encode(), digest_size=16).hexdigest()
