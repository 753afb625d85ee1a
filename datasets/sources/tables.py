"""Tables beside the images: read strictly, and named by file and line when they are wrong."""

import csv
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from datasets.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a table; `place` says where it stands."""

    place: str
    values: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        """Return the text of a column, stripped, "" where the column is missing."""
        return (self.values.get(column) or "").strip()

    def number(self, column: str) -> float:
        """Return a column as a finite number, or raise `DataError`."""
        try:
            value = float(self[column])
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


def read_table(path: Path, columns: Sequence[str]) -> tuple[tuple[str, ...], list[Line]]:
    """Return the stripped header and the lines of a CSV file that has at least these columns, or raise `DataError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = header = [name.strip() for name in reader.fieldnames or ()]
            lines = [Line(place=f"{path} line {reader.line_num}", values=row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: a CSV file in UTF-8; restore it") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}; allowed: a header with {list(columns)}, found {list(header)}; "
            "correct its first line"
        )
    return tuple(header), lines


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
