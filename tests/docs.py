"""Reads the documents: fenced blocks, links, tables of keys, and the content that those tables should have."""

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
GUIDES = tuple(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "study" / "docs").glob("*.md")))
"""The reference, by topic."""
USER_DOCUMENTS = ("README.md", *GUIDES)
"""Documents whose blocks are run and whose tables of keys are checked, in reading order."""
PACKAGE_PAGES = tuple(f"{package}/README.md" for package in ("cluster", "results", "models", "datasets"))
DOCUMENTS = (*USER_DOCUMENTS, "CONTRIBUTING.md", "CHANGELOG.md", *PACKAGE_PAGES)
Models = Mapping[type[BaseModel], str]
"""Models of a table, each with the prefix of its keys."""
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Row(NamedTuple):
    """One line of a table of keys."""

    key: str
    default: str
    line: str


def read(name: str) -> str:
    """Return a document's text."""
    return (ROOT / name).read_text(encoding="utf-8")


def fenced(text: str) -> list[tuple[str, str]]:
    """Return kind and body of every fenced block."""
    return [(kind.strip(), body) for kind, body in _FENCED.findall(text)]


def blocks(text: str, kind: str) -> list[str]:
    """Return the bodies of the fenced blocks of a kind (the exact text after the opening fence)."""
    return [body for name, body in fenced(text) if name == kind]


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub forms them."""
    titles = re.findall(r"^#+ (.*)$", _FENCED.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    """Return the targets of a document's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", text))


def section(text: str, title: str) -> str:
    """Return the text below a level-2 heading, up to the next one."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def merged(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a study file with a fragment merged into it."""
    result = deepcopy(document)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def apply(text: str, tree: Path) -> list[str]:
    """Apply a document's `python FILE` and `diff FILE` blocks to a tree; return the names of the files."""
    changes = [(*kind.split(" "), body) for kind, body in fenced(text) if re.fullmatch(r"(python|diff) \S+", kind)]
    for kind, name, body in changes:
        file = tree / name
        if kind == "python":
            assert not file.exists(), f"{name} already exists"
            file.write_text(body, encoding="utf-8")
            continue
        old, new = ("\n".join(line[1:] for line in body.splitlines() if line[0] in kept) for kept in (" -", " +"))
        before = file.read_text(encoding="utf-8")
        assert before.count(old) == 1, f"{name} contains this {before.count(old)} times:\n{old}"
        file.write_text(before.replace(old, new), encoding="utf-8")
    return [name for _, name, _ in changes]


def shell_lines(text: str) -> list[str]:
    """Return the lines of `sh` blocks, without their comments."""
    return [line.partition(" #")[0].strip() for body in blocks(text, "sh") for line in body.splitlines()]


def commands(text: str, program: str) -> list[str]:
    """Return the lines of `sh` blocks that call a program, without their comments."""
    return [line for line in shell_lines(text) if line.split(" ")[0] == program]


def key_tables(text: str) -> Iterator[tuple[Models, list[Row]]]:
    """Yield models (with prefix) and rows of each table marked `<!-- keys: module.Model prefix; ... -->`."""
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

    Tags (`task`, `source`) and nested models are left out: the keys of a nested model have their own prefix.
    """
    fields = {}
    for model, prefix in models.items():
        for name, field in model.model_fields.items():
            if not is_tag(field) and not _is_section(field):
                fields[".".join(filter(None, (prefix, field.alias or name)))] = field
    return fields


def inherited_keys(models: Models, documented: Iterable[type[BaseModel]]) -> set[str]:
    """Return the keys that models inherit from base classes that have their own table."""
    bases = {base for base in documented for model in models if base in model.__mro__[1:]}
    return {key for base in bases for key in own_fields({base: ""})}


def is_tag(field: FieldInfo) -> bool:
    """Return whether a field only names its model (`task`, `source`)."""
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
    """Return the allowed words of a field; for a mapping that is one of several values, its keys with a colon."""
    words: set[str] = set()
    for kind in _parts(field.annotation):
        if get_origin(kind) is Literal:
            words.update(str(word) for word in get_args(kind))
        elif isinstance(kind, type) and _is_inline(kind, field):
            keys: Mapping[str, FieldInfo] = getattr(kind, "model_fields", {})
            words.update(f"{inner.alias or name}:" for name, inner in keys.items())
    return words


def sections_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Return a model and all models nested in it that need a table: all but those documented inline."""
    sections: set[type[BaseModel]] = set()
    pending = [model]
    while pending:
        current = pending.pop()
        if current not in sections:
            sections.add(current)
            for field in current.model_fields.values():
                parts = [part for part in _parts(field.annotation) if isinstance(part, type)]
                pending += [part for part in parts if issubclass(part, BaseModel) and not _is_inline(part, field)]
    return sections


def _parts(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a type expression
    yield kind
    if get_origin(kind) is not Literal:
        for inner in get_args(kind):
            yield from _parts(inner)


def _is_inline(kind: type, field: FieldInfo) -> bool:
    """Return whether a mapping is one of several values (`{images: 20}` or `folds`), documented in its field's row."""
    if not issubclass(kind, BaseModel) or any(is_tag(inner) for inner in kind.model_fields.values()):
        return False
    unions = (part for part in _parts(field.annotation) if get_origin(part) in (Union, UnionType))
    return any(kind in get_args(union) for union in unions)
