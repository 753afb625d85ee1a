"""What the documents hold: fenced blocks, tables of keys, and what those tables should say."""

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
PAGES = tuple(f"{package}/README.md" for package in ("study", "cluster", "results", "models", "datasets"))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES)
Models = Mapping[type[BaseModel], str]
"""Models of a table, each with what stands before its keys."""


class Row(NamedTuple):
    """One line of a table of keys."""

    key: str
    default: str
    line: str


def read(name: str) -> str:
    """Return a document's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """Return the texts of all fenced blocks whose fence says exactly `kind`."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for said, body in found if said.strip() == kind]


def anchors(text: str) -> set[str]:
    """Return what links into a document may name: its titles."""
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a study file with a fragment merged into it."""
    result = deepcopy(document)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def apply(text: str, tree: Path) -> list[str]:
    """Make the changes that a document shows (`python FILE` and `diff FILE`) to a tree; return the files."""
    found: list[tuple[str, str, str]] = re.findall(
        r"^```(python|diff) (\S+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL
    )
    for kind, name, body in found:
        file = tree / name
        if kind == "python":
            assert not file.exists(), f"{name} is there already"
            file.write_text(body, encoding="utf-8")
            continue
        old, new = ("\n".join(line[1:] for line in body.splitlines() if line[0] in kept) for kept in (" -", " +"))
        before = file.read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{name} has this {before.count(old)} times:\n{old}"
        file.write_text(before.replace(old, new), encoding="utf-8")
    return [name for _, name, _ in found]


def commands(text: str, program: str) -> list[str]:
    """Return the lines of `sh` blocks that call a program, without their comments."""
    lines = (line.partition(" #")[0].strip() for body in blocks(text, "sh") for line in body.splitlines())
    return [line for line in lines if line.split(" ")[0] == program]


def key_tables(text: str) -> Iterator[tuple[Models, list[Row]]]:
    """Yield for each table marked `<!-- keys: module.Model prefix; ... -->` its models with prefix, and its rows."""
    for marker, table in re.findall(r"^<!-- keys: (.*?) -->\n+((?:\|.*\n)+)", text, flags=re.MULTILINE):
        models = {}
        for part in marker.split(";"):
            name, _, prefix = part.strip().partition(" ")
            module, _, attribute = name.rpartition(".")
            models[getattr(import_module(module), attribute)] = prefix
        yield models, [_row(line) for line in table.splitlines()[2:]]


def _row(line: str) -> Row:
    key, default = (cell.strip().strip("`") for cell in line.strip("|").split("|")[:2])
    return Row(key=key, default=default, line=line)


def own_fields(models: Models) -> dict[str, FieldInfo]:
    """Return the fields of models by key as a study file spells them.

    Left out is what only names the model, and what is a model of its own: its keys stand under their own prefix.
    """
    found = {}
    for model, prefix in models.items():
        for name, field in model.model_fields.items():
            if not is_tag(field) and not _is_section(field):
                found[".".join(filter(None, (prefix, field.alias or name)))] = field
    return found


def inherited_keys(models: Models, told: Iterable[type[BaseModel]]) -> set[str]:
    """Return the keys that a base class brings which has a table of its own."""
    bases = {base for base in told for model in models if base in model.__mro__[1:]}
    return {key for base in bases for key in own_fields({base: ""})}


def is_tag(field: FieldInfo) -> bool:
    """Return whether a field only says which of several models it is (`task`, `source`)."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def default_text(field: FieldInfo) -> str:
    """Return how the documents write a field's default."""
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if value is None or value in ({}, ()):
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False).removesuffix("\n...\n").strip()


def words_of(field: FieldInfo) -> set[str]:
    """Return the words a field's value is chosen from; of a mapping to choose, its keys with a colon."""
    found: set[str] = set()
    for kind in _parts(field.annotation):
        if get_origin(kind) is Literal:
            found.update(str(word) for word in get_args(kind))
        elif isinstance(kind, type) and _told_as_value(kind, field):
            keys: Mapping[str, FieldInfo] = getattr(kind, "model_fields", {})
            found.update(f"{inner.alias or name}:" for name, inner in keys.items())
    return found


def sections_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Return a model and every one below it that needs a table: all but the small ones told as a value."""
    found: set[type[BaseModel]] = set()
    waiting = [model]
    while waiting:
        section = waiting.pop()
        if section not in found:
            found.add(section)
            for field in section.model_fields.values():
                parts = [part for part in _parts(field.annotation) if isinstance(part, type)]
                waiting += [part for part in parts if issubclass(part, BaseModel) and not _told_as_value(part, field)]
    return found


def _parts(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a type expression
    yield kind
    if get_origin(kind) is not Literal:
        for inner in get_args(kind):
            yield from _parts(inner)


def _told_as_value(kind: type, field: FieldInfo) -> bool:
    """A mapping that is one of several values (`{images: 20}` or `folds`) is told in the row of its field."""
    if not issubclass(kind, BaseModel) or any(is_tag(inner) for inner in kind.model_fields.values()):
        return False
    unions = (part for part in _parts(field.annotation) if get_origin(part) in (Union, UnionType))
    return any(kind in get_args(union) for union in unions)
