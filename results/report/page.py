"""One page from text, tables and figures: self-contained HTML that needs no network and works without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from results.text import printable_lines


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a grid; numbers are set to the right and sorted as numbers."""

    name: str
    number: bool = False


@dataclass(frozen=True)
class Entry:
    """What a grid shows at one place; `value` is sorted by, None comes last."""

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list of short lines."""

    kind: ClassVar[str] = "items"
    items: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text to be copied as it is; `label` says what it is."""

    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with what it shows in words, for those who do not see it, and its caption."""

    kind: ClassVar[str] = "picture"
    data: str
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table. The first `heads` columns name the row. Readers may sort it, and filter its rows, where that is said."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Entry]]
    heads: int = 1
    sorts: bool = False
    filters: bool = False


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks that are shown when asked for; `title` is always seen."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: "Sequence[Block]"


Block = Text | Items | Code | Picture | Grid | Folded


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; `id` is its address on it."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole page. `missing` says what is not there yet, empty when all is."""

    title: str
    question: str
    answer: Sequence[str]
    sections: Sequence[Section]
    made: str
    missing: Sequence[str] = field(default_factory=tuple)


def render(report: Report) -> str:
    """Return the page. All text is escaped; the only scripts and styles are our own."""
    environment = Environment(
        loader=PackageLoader("results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    style, script = (_file(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(report=report, style=style, script=script)


def _visible(value: object) -> object:
    """Escape invisible characters of text that is inserted into the page."""
    return printable_lines(value) if type(value) is str else value


def embedded(content: str | bytes) -> str:
    """Return svg text or png bytes as an address that holds its content."""
    kind, raw = ("svg+xml", content.encode()) if isinstance(content, str) else ("png", content)
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _file(name: str) -> str:
    return (resources.files("results") / "templates" / name).read_text(encoding="utf-8")
