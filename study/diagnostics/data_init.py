"""Writes a study file for a download: recognises its layout, checks it with the loader, and draws what was read."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from datasets.checks.contact import chosen_rows, draw_contact
from datasets.decoding.decode import channels_of
from datasets.errors import DataError
from datasets.layout.files import list_files
from datasets.layout.proposal import Proposal
from datasets.layout.recognise import recognise
from datasets.layout.unused import unused_tables
from datasets.source import Index, Source
from datasets.sources import DataSettings, open_source
from study.config.document import Document, parse_yaml
from study.diagnostics.first_comparison import first_comparison
from study.errors import ConfigError, Problem
from study.planning.load import load_planner
from study.planning.read_progress import progress_line
from study.store.atomic import write_atomic

COMMAND = "study data init"
CONTACT_IMAGES = 12
CHECKED_IMAGES = 500


def data_init(
    place: Path, output: Path | None, *, cache: Path, force: bool = False, checked: int = CHECKED_IMAGES
) -> Iterator[str]:
    """Write a study file that reads a data set where it is, and a contact sheet; yield lines about both.

    Args:
        place: A folder, an archive or a COCO file.
        output: The study file; default: named after the folder.
        cache: Folder of the data caches.
        force: Whether existing files are replaced.
        checked: Number of images above which only about so many are read before the file is written.

    Raises:
        ConfigError: The data set is not recognised or has errors, or the file cannot be written.
    """
    try:
        root, proposal = recognise(place)
    except DataError as error:
        raise _refused(str(error)) from error
    except OSError as error:
        raise _refused(
            f"{error.filename} cannot be read ({error.strerror}); allowed: readable files; restore it"
        ) from error
    path = output or Path(f"{_name_of(place)}.yaml")
    sheet = path.with_name(f"{path.stem}-contact.png")
    _check_output(path, sheet, root, force=force)
    name = _name_of(path)
    settings: Document = {"source": proposal.settings["source"], "root": str(root), **_without(proposal, "source")}
    source, index = _opened(_limited(settings, checked), name, cache)
    shared = _shared_patients(index, settings)
    if shared:
        del settings["split"]
        proposal = _without_split(proposal, shared)
    skipped = unused_tables(list_files(root), settings)
    proposal = replace(proposal, unknown=[*proposal.unknown, *skipped])
    document = _document(name, settings, source, index)
    is_limited = len(index) >= checked
    limited = document | {"data": {name: _limited(settings, checked)}} if is_limited else document
    load_planner(limited, file=str(place), cache=cache)
    text = _text(place, document, proposal)
    if parse_yaml(text) != document:
        raise _refused(
            f"{path} would not be read as it is written; allowed: names without control characters; rename the folder"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        rows = chosen_rows(index, CONTACT_IMAGES)
        draw_contact(source, index, rows, sheet)
    except OSError as error:
        raise _refused(
            f"{path} cannot be written ({error.strerror}); allowed: a writable path; choose another with -o"
        ) from error
    yield f"{place}: {proposal.layout}, {_counts(index)}"
    yield from _lines("assumed", proposal.assumed)
    yield from _lines("unknown", proposal.unknown)
    yield from _lines("check", proposal.check)
    yield from _lines("check", _remarks(index))
    if is_limited and settings["source"] == "folder":
        yield f"check    only these {len(index):,} images were read; `study plan` reads all"
    yield f"wrote {path}, and {sheet} with {len(rows)} images and the contours of their masks: look at it"
    yield f"next: study plan {path}"


def _check_output(path: Path, sheet: Path, root: Path, *, force: bool) -> None:
    """Raise `ConfigError` for a study file or contact sheet that cannot be written without harm to other files."""
    if path.suffix not in (".yaml", ".yml"):
        raise _refused(f"{path} is no YAML file; allowed: a name that ends with .yaml; choose another with -o")
    if path.resolve().is_relative_to(root.resolve()):
        raise _refused(
            f"{path} is inside the data set {root}, where its contact sheet would be read as an image; allowed: a file "
            "outside; choose another with -o"
        )
    existing = next((file for file in (path, sheet) if file.exists()), None)
    if existing is not None and not force:
        raise _refused(
            f"{existing} exists; allowed: a new file; choose another name with -o, or replace it with --force"
        )


def _shared_patients(index: Index, settings: Document) -> int:
    """Return the number of patients with images in several published parts, 0 for a split into folds."""
    if "split" not in settings:
        return 0
    parts: dict[str, set[str]] = {}
    for patient, part in zip(index.patients, index.official, strict=True):
        parts.setdefault(patient, set()).add(part)
    return sum(len(members) > 1 for members in parts.values())


def _remarks(index: Index) -> list[str]:
    """Return the remarks of the source, each with the number of its images."""
    counts = Counter(text for remarks in index.remarks for text in remarks.split("\n") if text)
    return [f"in {count:,} images: {text}" for text, count in counts.items()]


def _without_split(proposal: Proposal, shared: int) -> Proposal:
    check = f"published parts share {shared:,} patients, so folds are used: whether these are patients"
    return replace(proposal, check=[check, *proposal.check])


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], COMMAND)


def _without(proposal: Proposal, key: str) -> Document:
    return {name: value for name, value in proposal.settings.items() if name != key}


def _name_of(path: Path) -> str:
    """Return a name of a study from that of a file or folder."""
    name = re.sub(
        r"[^A-Za-z0-9_-]+", "-", path.resolve().name.removesuffix(path.suffix) if path.suffix else path.resolve().name
    )
    return name.strip("-_")[:60].lower() or "data"


def _limited(settings: Document, images: int) -> Document:
    """Return the settings with which only about so many images are read; other sources than `folder` read all."""
    return settings | ({"limit": images} if settings["source"] == "folder" else {})


def _opened(settings: Document, name: str, cache: Path) -> tuple[Source, Index]:
    adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
    try:
        source = open_source(adapter.validate_python(settings))
        return source, source.index(cache, progress_line(name))
    except DataError as error:
        raise _refused(str(error)) from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise _refused(f"{settings['root']}: {reason}") from error


def _document(name: str, settings: Document, source: Source, index: Index) -> Document:
    rows = [row for row in range(len(index)) if not index.fault(row)]
    masked = [row for row in rows if index.annotation_digests["masks"][row]]
    if not masked:
        fault = next((index.fault(row) for row in range(len(index)) if index.fault(row)), "no mask can be read")
        raise _refused(f"{settings['root']}: {fault}")
    if not any(index.shows(row) for row in masked):
        raise _refused(
            f"{settings['root']}: all {len(masked):,} masks that were read are empty; allowed: masks with foreground; "
            "correct the masks or complete the download"
        )
    channels = max({channels_of(source.image(row)) for row in chosen_rows(index, CONTACT_IMAGES)}, default=1)
    split = settings.get("split")
    fixed = isinstance(split, Mapping) and split.get("test") == "official"
    patients = len({index.patients[row] for row in masked})
    comparison = first_comparison(name, patients=patients, channels=channels, fixed_test=fixed)
    return {"name": name, "data": {name: settings}, **comparison}


def _counts(index: Index) -> str:
    masks = sum(map(bool, index.annotation_digests["masks"]))
    return f"{len(index):,} images read, {masks:,} with masks, {len(set(index.patients)):,} patients"


def _lines(kind: str, sentences: Sequence[str]) -> Iterator[str]:
    yield from (f"{kind:8} {sentence}" for sentence in sentences)


def _text(place: Path, document: Document, proposal: Proposal) -> str:
    """Return the study file: ordinary keys, with comments where a user has to check."""
    (name,) = document["data"]
    lines = [f"# Written by `{COMMAND}` for {_comment(str(place))} ({proposal.layout})."]
    lines += [f"name: {_scalar(name)}", "data:", f"  {_scalar(name)}:"]
    lines += [f"    # assumed: {_comment(sentence)}" for sentence in proposal.assumed]
    lines += [f"    # check: {_comment(sentence)}" for sentence in (*proposal.unknown, *proposal.check)]
    lines += [f"    {key}: {_flow(value)}" for key, value in document["data"][name].items()]
    for section in ("image", "stages", "pathways", "compare"):
        value = document[section]
        if section == "image":
            lines.append(f"image: {_flow(value)}")
        else:
            lines += [f"{section}:", *(f"  {key}: {_flow(entry)}" for key, entry in value.items())]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else "?" for char in text).split())


class _Dumper(yaml.SafeDumper):
    """Writes texts in quotes unless they are plain words."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_word = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and parse_yaml(text) == text == yaml.safe_load(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else '"')


_Dumper.add_representer(str, _represent)


def _flow(value: object) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _scalar(text: str) -> str:
    return _flow(text)
