"""Read imported results: one value per line, checked and completed to the columns of a results table."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.errors import DataError
from datasets.sources.common.tables import read_table
from results import schema
from results.schema import FACTORS, SIZES, UNIT_INTERVAL
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("metric", "value")
OPTIONAL = ("fold", "seed", *SIZES, "class", "aggregation", "split", "image", "patient", "dataset")
RESERVED = frozenset({
    *schema.results().names, *schema.comparisons().names, *schema.paired_tests().names, "line", "arm", "level", "cell",
    "series", "replicate", "row", "side", "kind", "cell_claim", "cell_unit", "cell_pending", "cell_note",
    "replicate_note", "interval_note", "answer_note", "baseline_cell",
}) - {*REQUIRED, *OPTIONAL, *FACTORS}  # fmt: skip
"""Names of columns of results tables and of their computation, which a factor must not have."""
UNNAMED = frozenset({"", "nan", "<na>", "null"})
"""Texts of a missing value in a column of names; "none" is a common name of a factor's value."""
ABSENT = "-"
"""Value of a standard factor that the file does not have."""
DEFAULTS = {"class": "macro", "split": "test", "fold": "0", "seed": "0"}
AGGREGATIONS = ("dataset", "case")
SHOWN = 3
"""Maximum number of names that a message lists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedValues:
    """Values in long format.

    Attributes:
        frame: One line per value with the columns of `OPTIONAL`, `metric`, `value` (NaN where undefined), the four
            standard factors and any further ones as text, and `line`, the position in the file. Columns that the source
            lacks have their default; `image`, `patient` and `dataset` are "". With data sets, images and patients have
            the name of theirs as prefix.
        level: The column of labelled data that identifies cells.
    """

    frame: "pd.DataFrame"
    level: schema.Level


def read_values(file: Path, *, scale: float = 1.0) -> ImportedValues:
    """Return the lines of a CSV or Parquet file.

    Args:
        file: Has the columns `metric` and `value`, those of `OPTIONAL` that apply, and one column for each factor.
        scale: Number by which values are divided, for example 100 for percent.

    Raises:
        ConfigError: With the first problem of each kind.
    """
    frame = _read(file)
    problems = [*_column_problems(frame), *_cell_problems(frame)]
    if problems:
        raise ConfigError([Problem(path="", message=problem) for problem in problems], str(file))
    return complete(frame, file, scale=scale)


def complete(frame: "pd.DataFrame", source: Path, *, scale: float = 1.0) -> ImportedValues:
    """Return lines of text with all columns, defaults filled in, and numbers as numbers.

    Raises:
        ConfigError: A value is outside of its range, or given twice.
    """
    values = _completed(frame)
    values["value"] /= scale
    problems = [*_value_problems(values), *_repeated(values)]
    if problems:
        raise ConfigError([Problem(path="", message=problem) for problem in problems], str(source))
    by_number = "labelled_images" in frame and "labelled_fraction" not in frame
    return ImportedValues(frame=values, level="labelled_images" if by_number else "labelled_fraction")


def _completed(frame: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    values = pd.DataFrame({"line": frame["line"]})
    factors = [*FACTORS, *further_factors(frame.columns)]
    for name in factors:
        values[name] = frame.get(name, ABSENT)
    has_images = "image" in frame and (frame["image"] != "").any()
    for name in ("metric", "image", "patient", "dataset"):
        values[name] = frame.get(name, "")
    values["value"] = [float(text) if text else math.nan for text in frame["value"]]
    defaults = {**DEFAULTS, "aggregation": "case" if has_images else "dataset"}
    for name, default in defaults.items():
        values[name] = frame.get(name, default)
    for name in ("fold", "seed"):
        values[name] = pd.to_numeric(values[name]).astype("int64")
    given = {name: pd.to_numeric(frame[name]) for name in SIZES if name in frame}
    images = given.get("labelled_images", pd.Series(0, index=frame.index))
    fraction = given.get("labelled_fraction", images / max(images.max(), 1) if images.any() else images * 0 + 1.0)
    values["labelled_fraction"] = fraction.astype("float64").round(6)
    values["labelled_images"] = images.astype("int64")
    values.loc[values["patient"] == "", "patient"] = values["image"]
    of_data_set = (values["dataset"] != "") & (values["image"] != "")
    for name in ("image", "patient"):
        values.loc[of_data_set, name] = values["dataset"] + "/" + values[name]
    return values


def further_factors(columns: Iterable[str]) -> list[str]:
    """Return the factors of a file besides the four standard ones, in its order."""
    known = {"line", "digest", *REQUIRED, *OPTIONAL, *FACTORS}
    return [name for name in columns if name not in known]


def factors_of(values: "pd.DataFrame") -> list[str]:
    """Return all factors, the four standard ones first."""
    return [*FACTORS, *further_factors(values.columns)]


def grouped(frame: "pd.DataFrame", columns: Sequence[str]) -> "Iterator[tuple[tuple[Any, ...], pd.DataFrame]]":
    """Yield the groups of lines with equal values in these columns, in order of appearance."""
    for key, lines in frame.groupby(list(columns), sort=False):
        yield (key if isinstance(key, tuple) else (key,)), lines


def _read(file: Path) -> "pd.DataFrame":
    """Return all cells as stripped text."""
    import pandas as pd

    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(file)
        header, lines = read_table(file, REQUIRED, (*REQUIRED, *OPTIONAL, *FACTORS))
    except (DataError, OSError) as error:
        raise ConfigError([Problem(path="", message=_without_file(str(error), file))], str(file)) from error
    if "line" in header:
        message = "has the column line, a name that results tables use; allowed: other names; rename it"
        raise ConfigError([Problem(path="", message=message)], str(file))
    columns = [name for name in header if name]
    if not lines:
        raise ConfigError([Problem(path="", message="has no lines; allowed: a line for each value")], str(file))
    frame = pd.DataFrame({name: [line[name] for line in lines] for name in columns}, dtype=str)
    return frame.assign(line=[line.place.rpartition(" ")[2] for line in lines])


def _read_parquet(file: Path) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except pa.ArrowException as error:
        message = f"is no Parquet file ({str(error).splitlines()[0]}); allowed: Parquet, or CSV with another suffix"
        raise ConfigError([Problem(path="", message=message)], str(file)) from error
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        message = f"lacks the columns {missing}; allowed: columns {', '.join(REQUIRED)} and factors; add them"
        raise ConfigError([Problem(path="", message=message)], str(file))
    frame = pd.DataFrame({name: [_text(value) for value in table[name].to_pylist()] for name in table.column_names})
    return frame.assign(line=[str(number) for number in range(1, len(frame) + 1)])


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return (repr(value) if isinstance(value, float) else str(value)).strip()


def _without_file(message: str, file: Path) -> str:
    return message.removeprefix(str(file)).removeprefix(":").strip()


def _column_problems(frame: "pd.DataFrame") -> Iterator[str]:
    reserved = [name for name in frame.columns if name in RESERVED and name != "line"]
    if reserved:
        yield (
            f"has the column {reserved[0]}, a name that results tables use; allowed: other names of factors, such as "
            "method; rename it"
        )
    if "patient" in frame and "image" not in frame:
        yield "has patients without images; allowed: patient beside image, for per-case values; add image or drop it"


def _cell_problems(frame: "pd.DataFrame") -> Iterator[str]:
    """Yield the first invalid cell of each column."""
    checks: Mapping[str, tuple[Callable[[str], bool], str]] = {
        "value": (lambda text: text == "" or _is_number(text), "a number, or empty where it is undefined"),
        "fold": (_is_count, "a whole number from 0"),
        "seed": (_is_count, "a whole number from 0"),
        "labelled_fraction": (lambda text: _is_number(text) and 0 < float(text) <= 1, "a number above 0, up to 1"),
        "labelled_images": (lambda text: _is_count(text) and float(text) > 0, "a whole number from 1"),
        "aggregation": (lambda text: text in AGGREGATIONS, "dataset (pooled over images) or case (mean over images)"),
    }
    for name, (is_valid, allowed) in checks.items():
        if name in frame:
            yield from _first_invalid(frame, name, is_valid, allowed)
    named = ["metric", "class", "split", "dataset", "patient", *FACTORS, *further_factors(frame.columns)]
    for name in named:
        if name in frame:
            yield from _first_invalid(frame, name, _is_named, "a name in every line")
    if "image" in frame and (frame["image"] != "").any():
        yield from _first_invalid(frame, "image", bool, "an image in every line, or in none; use two files")
        if "aggregation" in frame:
            yield from _first_invalid(frame, "aggregation", lambda text: text == "case", "case, as lines have images")


def _first_invalid(frame: "pd.DataFrame", name: str, is_valid: Callable[[str], bool], allowed: str) -> Iterator[str]:
    wrong = frame[[not is_valid(text) for text in frame[name]]]
    if len(wrong):
        first = wrong.iloc[0]
        more = f" (and {len(wrong) - 1} more lines)" if len(wrong) > 1 else ""
        yield f"line {first['line']}: {name} is '{first[name]}'{more}; allowed: {allowed}; correct it"


def _is_named(text: str) -> bool:
    return text.casefold() not in UNNAMED


def _is_number(text: str) -> bool:
    try:
        return text.isascii() and "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def _is_count(text: str) -> bool:
    return _is_number(text) and float(text).is_integer() and 0 <= float(text) < 2**31


def _value_problems(values: "pd.DataFrame") -> Iterator[str]:
    bounded = values[values["metric"].isin(UNIT_INTERVAL)]
    outside = bounded[~bounded["value"].between(0, 1) & bounded["value"].notna()]
    if len(outside):
        first = outside.iloc[0]
        yield (
            f"line {first['line']}: {first['metric']} is {first['value']:g} ({len(outside)} such lines); allowed: 0 to "
            "1; divide percent with --scale 100, or give another metric name"
        )


def _repeated(values: "pd.DataFrame") -> Iterator[str]:
    key = [*factors_of(values), *SIZES, "fold", "seed", "split", "aggregation", "class", "metric", "image", "dataset"]
    repeated = values[values.duplicated(key, keep=False)]
    if len(repeated):
        first = repeated.iloc[0]
        same = repeated[(repeated[key] == first[key]).all(axis=1)]
        yield (
            f"lines {' and '.join(same['line'].tolist()[:SHOWN])} give the same value twice ({first['metric']} of fold "
            f"{first['fold']}, seed {first['seed']}); allowed: each once; remove one, or add the column that differs"
        )
