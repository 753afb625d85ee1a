"""Checks a data set before a study: its contents, its problems, and a contact sheet."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from datasets.checks.annotators import annotator_findings, shared_rows
from datasets.checks.classes import class_images_text
from datasets.checks.contact import chosen_rows, draw_contact
from datasets.checks.findings import check
from datasets.checks.volumes import volumes_text
from datasets.errors import DataError
from datasets.large import release, row_bands
from datasets.source import BACKGROUND, AnnotationKind, Index, ProgressCallback, Source
from datasets.sources import DataSettings, open_source
from datasets.sources.annotators import other_annotators, trained_annotator
from datasets.weak.regions import background_region
from study.config.document import Document, parse_yaml, set_path
from study.config.messages import dotted, faults
from study.errors import ConfigError, Problem
from study.planning.read_progress import progress_line

COMMAND = "study data check"
CONTACT_IMAGES = 24
MAX_NAMES = 16
"""Maximum number of names in a line; of further names only the number is given."""
THREADS = 4
CONTACT_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
_SETTINGS_PATH = ("data", "checked")
"""Path of the settings if they were in a study file."""


def read_settings(source: str, root: Path | None, overrides: Iterable[str] = ()) -> DataSettings:
    """Return the settings of a data set, validated like `data.NAME` of a study file. Raises `ConfigError`."""
    document: Document = {"source": source} | ({"root": str(root)} if root is not None else {})
    for override in overrides:
        key, separator, value = override.partition("=")
        try:
            if not (key and separator):
                raise ValueError("it has no key or no value")
            set_path(document, key, parse_yaml(value))
        except (ValueError, yaml.YAMLError) as error:
            message = f"--set {override!r} cannot be read ({' '.join(str(error).split())}); allowed: --set key=value"
            raise ConfigError([Problem(path=key, message=message)], COMMAND) from error
    try:
        adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
        return adapter.validate_python(document)
    except ValidationError as error:
        errors = faults(error, document, at=_SETTINGS_PATH)
        problems = [Problem(path=dotted(item.path[len(_SETTINGS_PATH) :]), message=item.message) for item in errors]
        raise ConfigError(problems, COMMAND) from error


def data_check(settings: DataSettings, *, cache: Path, output: Path) -> Iterator[str]:
    """Yield the contents and the problems of a data set, and draw its contact sheet.

    Raises:
        ConfigError: The data cannot be read or have errors, or the sheet cannot be written.
    """
    if output.suffix.lower() not in CONTACT_SUFFIXES:
        message = f"{output} is not an image file; allowed: {', '.join(CONTACT_SUFFIXES)}; choose another name"
        raise ConfigError([Problem(path="--output", message=message)], COMMAND)
    progress = progress_line(settings.source)
    source = open_source(settings)
    index = _index(source, cache, progress)
    others = {name: _index(open_source(other), cache, progress) for name, other in other_annotators(settings).items()}
    problems = [*check(index), *annotator_findings(index, trained_annotator(settings), others)]
    yield from _counts(source, index, progress)
    for name, other in others.items():
        yield _line("annotator", f"{name}: {len(shared_rows(index, other)):,} images in common with the one trained on")
    rows = chosen_rows(index, CONTACT_IMAGES)
    if rows:
        yield from _draw_sheet(source, index, rows, output)
    yield from (f"warning: {finding.message}" for finding in problems if finding.severity == "warning")
    errors = [finding.message for finding in problems if finding.severity == "error"]
    if errors:
        raise ConfigError([Problem(path=settings.source, message=message) for message in errors], COMMAND)
    yield "no errors"


def _index(source: Source, cache: Path, progress: ProgressCallback) -> Index:
    try:
        return source.index(cache, progress)
    except DataError as error:
        raise ConfigError([Problem(path="", message=str(error))], COMMAND) from error
    except OSError as error:
        reason = f"{error.filename} cannot be used ({error.strerror})"
        message = f"{reason}; allowed: files and folders you may read, and a cache you may write; set ROOT or --cache"
        raise ConfigError([Problem(path="", message=message)], COMMAND) from error


def _draw_sheet(source: Source, index: Index, rows: list[int], output: Path) -> Iterator[str]:
    """Write a sheet of example images with their annotations, and yield lines on their sizes and the file.

    Args:
        rows: Rows of the index to draw.
        output: The file, e.g. `check.png`.
    """
    try:
        sizes = draw_contact(source, index, rows, output)
    except OSError as error:
        message = f"{output} cannot be written ({error.strerror}); allowed: a writable path; choose another"
        raise ConfigError([Problem(path="--output", message=message)], COMMAND) from error
    areas = sorted(sizes, key=lambda size: size[0] * size[1])
    spread = [f"{width} x {height}" for width, height in dict.fromkeys((areas[0], areas[-1]))]
    yield _line("size", f"{' to '.join(spread)} pixels, of the {len(rows)} images drawn")
    yield f"wrote {output}: {len(rows)} images with their annotations"


def _counts(source: Source, index: Index, progress: ProgressCallback) -> Iterator[str]:
    usable = [row for row in range(len(index)) if not index.fault(row)]
    faulty = f", {len(index) - len(usable):,} with a fault" if len(usable) < len(index) else ""
    yield _line("images", f"{len(index):,}, of {len(set(index.patients)):,} patients{faulty}")
    numbers = Counter(index.channels[row] for row in usable) if index.channels else Counter[int]()
    if set(numbers) - {1}:
        yield _line("channels", _counts_text(Counter({str(number): times for number, times in numbers.items()})))
    volumes = volumes_text(index)
    if volumes:
        yield _line("volumes", volumes)
    for name, column in (("split", index.official), ("category", index.categories)):
        if any(column):
            yield _line(name, _counts_text(Counter(value or "none" for value in column)))
    readers: Mapping[AnnotationKind, Callable[[int], Iterable[str]]] = {
        "labels": lambda row: (
            name for name, value in zip(index.labels, source.labels(row), strict=True) if value == 1
        ),
        "boxes": lambda row: {box.name for box in source.boxes(row)},
        "centres": source.centres,
        "masks": lambda row: _classes(source, index, row),
        "scribbles": lambda row: _scribbled(source, index, row),
        "points": lambda row: (point.name for point in source.points(row)),
    }
    for kind, names_of in readers.items():
        rows = [row for row in usable if index.annotation_digests[kind][row]]
        with ThreadPoolExecutor(THREADS) as pool:
            counts = Counter[str]()
            for done, row_names in enumerate(pool.map(names_of, rows), start=1):
                counts.update(list(row_names))
                if kind in ("masks", "scribbles"):  # they are read from files, which takes time
                    progress(done, len(rows))
        if rows:
            counted = "points in" if kind == "points" else "of"
            yield _line(kind, f"{counted} {len(rows):,} images: {_counts_text(counts)}")
        if kind == "masks" and index.annotated:
            yield _line("annotated", f"images by class: {class_images_text(index)}")


def _scribbled(source: Source, index: Index, row: int) -> Iterator[str]:
    """Yield the classes with a scribble in an image, and the background if it has one."""
    scribbles = source.scribbles(row)
    for number, name in enumerate(index.classes):
        if ((scribbles[number] == 1) if index.overlapping else (scribbles == number + 1)).any():
            yield name
    if background_region(scribbles).any():
        yield BACKGROUND


def _classes(source: Source, index: Index, row: int) -> list[str]:
    """Return the classes in the masks of an image."""
    masks = source.masks(row)
    planes = masks.reshape(-1, *masks.shape[-2:])
    pixels = np.zeros((len(planes), 256), np.int64)
    for rows in row_bands(*masks.shape[-2:]):
        pixels += [np.bincount(plane[rows].ravel(), minlength=256) for plane in planes]
        release(masks)
    shown = np.flatnonzero(pixels[:, 1] if index.overlapping else pixels[0, 1 : len(index.classes) + 1])
    return [index.classes[number] for number in shown]


def _counts_text(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{name} {times:,}" for name, times in ordered[:MAX_NAMES]]
    return "; ".join(parts + ([f"{len(counts) - MAX_NAMES} more"] if len(counts) > MAX_NAMES else [])) or "none shown"


def _line(name: str, text: str) -> str:
    return f"{name:10} {text}"
