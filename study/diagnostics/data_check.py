"""Is a data set fit for a study? What is in it, what is wrong with it, and a picture of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from datasets.checks.contact import chosen_rows, draw_contact
from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Index, Offer, Progress, Source
from datasets.sources import DataSettings, open_source
from study.config.document import Document, parse_yaml, set_path
from study.config.messages import dotted, faults
from study.errors import ConfigError, Problem
from study.planning.read_progress import telling

COMMAND = "study data check"
DRAWN = 24
SPELLED = 16
"""Names told in a line; of more only how many there are."""
THREADS = 4
SHEETS = (".png", ".jpg", ".pdf", ".svg")
_AT = ("data", "checked")
"""Where the settings would stand in a study file."""


def read_settings(source: str, root: Path | None, overrides: Iterable[str] = ()) -> DataSettings:
    """Return the settings of one data set as `data.NAME` of a study file has them. Raises `ConfigError`."""
    document: Document = {"source": source} | ({"root": str(root)} if root is not None else {})
    for override in overrides:
        key, given, value = override.partition("=")
        try:
            if not (key and given):
                raise ValueError("it has no key or no value")
            set_path(document, key, parse_yaml(value))
        except (ValueError, yaml.YAMLError) as error:
            message = f"--set {override!r} cannot be read ({' '.join(str(error).split())}); allowed: --set key=value"
            raise ConfigError([Problem(path=key, message=message)], COMMAND) from error
    try:
        adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
        return adapter.validate_python(document)
    except ValidationError as error:
        found = faults(error, document, at=_AT)
        problems = [Problem(path=dotted(one.path[len(_AT) :]), message=one.message) for one in found]
        raise ConfigError(problems, COMMAND) from error


def data_check(settings: DataSettings, *, cache: Path, output: Path) -> Iterator[str]:
    """Yield what a data set holds and what is odd about it; draw its contact sheet. Raises `ConfigError` for errors."""
    if output.suffix.lower() not in SHEETS:
        message = f"{output} has no ending of a picture; allowed: {', '.join(SHEETS)}; choose another name"
        raise ConfigError([Problem(path="--output", message=message)], COMMAND)
    progress = telling(settings.source)
    source = open_source(settings)
    index = _index(source, cache, progress)
    found = check(index)
    yield from _counts(source, index, progress)
    rows = chosen_rows(index, DRAWN)
    if rows:
        yield from _drawn(source, index, rows, output)
    yield from (f"warning: {finding.message}" for finding in found if finding.severity == "warning")
    errors = [finding.message for finding in found if finding.severity == "error"]
    if errors:
        raise ConfigError([Problem(path=settings.source, message=message) for message in errors], COMMAND)
    yield "no errors"


def _index(source: Source, cache: Path, progress: Progress) -> Index:
    try:
        return source.index(cache, progress)
    except DataError as error:
        raise ConfigError([Problem(path="", message=str(error))], COMMAND) from error
    except OSError as error:
        what = f"{error.filename} cannot be used ({error.strerror})"
        message = f"{what}; allowed: files and folders you may read, and a cache you may write; set ROOT or --cache"
        raise ConfigError([Problem(path="", message=message)], COMMAND) from error


def _drawn(source: Source, index: Index, rows: list[int], output: Path) -> Iterator[str]:
    try:
        sizes = draw_contact(source, index, rows, output)
    except OSError as error:
        message = f"{output} cannot be written ({error.strerror}); allowed: a place you may write; choose another"
        raise ConfigError([Problem(path="--output", message=message)], COMMAND) from error
    areas = sorted(sizes, key=lambda size: size[0] * size[1])
    spread = [f"{width} x {height}" for width, height in dict.fromkeys((areas[0], areas[-1]))]
    yield _line("size", f"{' to '.join(spread)} pixels, of the {len(rows)} images drawn")
    yield f"wrote {output}: {len(rows)} images with what is known of them"


def _counts(source: Source, index: Index, progress: Progress) -> Iterator[str]:
    usable = [row for row in range(len(index)) if not index.fault(row)]
    faulty = f", {len(index) - len(usable):,} with a fault" if len(usable) < len(index) else ""
    yield _line("images", f"{len(index):,}, of {len(set(index.patients)):,} patients{faulty}")
    for name, column in (("split", index.official), ("category", index.categories)):
        if any(column):
            yield _line(name, _told(Counter(value or "none" for value in column)))
    names: Mapping[Offer, Callable[[int], Iterable[str]]] = {
        "labels": lambda row: (
            name for name, value in zip(index.labels, source.labels(row), strict=True) if value == 1
        ),
        "boxes": lambda row: {box.name for box in source.boxes(row)},
        "centres": source.centres,
        "masks": lambda row: _classes(source, index, row),
    }
    for kind, names_of in names.items():
        rows = [row for row in usable if index.offers[kind][row]]
        with ThreadPoolExecutor(THREADS) as pool:
            shown = Counter[str]()
            for done, found in enumerate(pool.map(names_of, rows), start=1):
                shown.update(list(found))
                if kind == "masks":  # the only ones that are read from files
                    progress(done, len(rows))
        if rows:
            yield _line(kind, f"of {len(rows):,} images: {_told(shown)}")


def _classes(source: Source, index: Index, row: int) -> list[str]:
    """Return the classes that the masks of one image show."""
    masks = source.masks(row)
    if index.overlapping:
        return [name for name, mask in zip(index.classes, masks, strict=True) if mask.any()]
    return [name for number, name in enumerate(index.classes, start=1) if (masks == number).any()]


def _told(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{name} {times:,}" for name, times in ordered[:SPELLED]]
    return "; ".join(told + ([f"{len(counts) - SPELLED} more"] if len(counts) > SPELLED else [])) or "none shown"


def _line(name: str, text: str) -> str:
    return f"{name:10} {text}"
