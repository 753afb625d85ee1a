"""Tables beside the images: read strictly, and named by file and line when they are wrong."""

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
"""How programs and people write a missing value; compared without regard to case."""
WHOLE_NUMBER = re.compile(r"0*(\d+)(?:\.0*)?", re.ASCII)
ROUNDED_NUMBER = re.compile(r"\d(?:\.\d+)?[Ee]\+\d+", re.ASCII)
"""How spreadsheets show numbers of more than 11 digits."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table; `place` says where it stands."""

    place: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """Return the text of a column, stripped, "" where the column is missing."""
        return (self.values.get(column) or "").strip()

    def name(self, column: str) -> str:
        """Return a column that names something, or raise `DataError`."""
        if self[column].casefold() in {"", *MISSING}:
            raise DataError(f"{self.place}: {column} is '{self[column]}'; allowed: a name; fill it in")
        return self[column]

    def number(self, column: str) -> float:
        """Return a column as a finite number, or raise `DataError`."""
        try:
            value = float("nan") if "_" in self[column] else float(self[column])  # Python reads 1_0 as 10
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
    """Return the stripped header and the lines of a CSV file that has at least `columns`.

    Raises `DataError`, also where a line has another number of fields than the header, as values would be shifted, and
    for a column that is `optional` but for its case. Empty lines, with or without commas, are skipped.
    """
    reader = csv.reader(StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num} is no CSV ({error}); allowed: CSV; correct it") from error
    header = [name.strip() for name in rows[0][1]] if rows else []
    repeated = [name for name, times in Counter(header).items() if name and times > 1]
    if repeated:
        raise DataError(f"{path} has the column '{repeated[0]}' twice; allowed: each column once; rename one")
    missing = [column for column in columns if column not in header]
    if missing:
        separated = len(header) == 1 and (";" in header[0] or "\t" in header[0])
        remedy = "separate its values with commas, and write decimal points" if separated else "correct its first line"
        raise DataError(
            f"{path} lacks the columns {missing}; allowed: a header with {list(columns)}, found {header}; {remedy}"
        )
    unlike = [name for name in header if name not in optional and name.casefold() in optional]
    if unlike:
        raise DataError(
            f"{path} has the column '{unlike[0]}', which is not read; allowed: {', '.join(optional)}, in small "
            "letters; rename it"
        )
    return tuple(header), [_line(f"{path} line {number}", header, row) for number, row in rows[1:]]


def _line(place: str, header: Sequence[str], row: Sequence[str]) -> Line:
    named = max((place for place, name in enumerate(header, 1) if name), default=0)  # spreadsheets leave empty ones
    if len(row) < named or any(row[len(header) :]):
        raise DataError(
            f"{place} has {len(row)} fields; allowed: {named}, as the header; put values that hold a comma in quotes"
        )
    return Line(place=place, values=dict(zip(header, row, strict=False)))


def check_patients(named: Iterable[tuple[str, str]]) -> None:
    """Raise `DataError` for a patient that stands for a missing value, and for one who is written in two ways.

    Also for numbers that a spreadsheet has rounded, as several patients would be one. `named` are places of tables and
    the patients named there.
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
        other_place, other = written.setdefault(_number(name), (place, name))
        if other != name:
            raise DataError(
                f"{place}: patient is '{name}', and '{other}' in {other_place}; allowed: one way to write a number; "
                "correct one"
            )


def _number(name: str) -> str:
    """Return a whole number in one form, and other names as they are: 12, 012 and 12.0 are one patient."""
    whole = WHOLE_NUMBER.fullmatch(name)
    return whole[1] if whole else name


def by_id(lines: Sequence[Line], column: str, suffix: str = "") -> dict[str, Line]:
    """Return each line by its id without the suffix; raise `DataError` for one that stands there twice."""
    found: dict[str, Line] = {}
    for line in lines:
        if not line[column].endswith(suffix) or line[column] == suffix:
            raise DataError(f"{line.place}: {column} is '{line[column]}'; allowed: NAME{suffix}; correct the line")
        name = line[column].removesuffix(suffix)
        if name in found:
            raise DataError(f"{line.place}: {line[column]} stands here twice; allowed: one line an id; remove one")
        found[name] = line
    return found


def require_images(wanted: Iterable[str], found: Container[str], table: Path) -> None:
    """Raise `DataError` where images that a table names are not there."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"{table} names {len(missing)} images that are not there ({missing[0]}); allowed: all of them; complete "
            "the download or take them out of the table"
        )


def choose(known: Sequence[str], wanted: Sequence[str] | None, key: str, where: object) -> tuple[str, ...]:
    """Return the wanted names, all where none are wanted; raise `DataError` for one that is not known."""
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        raise DataError(f"{key}: {unknown} not in {where}; allowed: {list(known)}; choose among these")
    return tuple(known if wanted is None else wanted)


def digest(*parts: object) -> str:
    """BLAKE2b-128 of texts, numbers and lists of them."""
    return blake2b(json.dumps(parts, ensure_ascii=False).encode(), digest_size=16).hexdigest()
