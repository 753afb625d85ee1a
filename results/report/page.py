"""Render text, tables and figures as one self-contained HTML page that needs no network and works without scripts."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from results.text import printable_lines

NARROW, COLUMN, LINE = 64, 4, 28
"""Characters of a narrow table, those that a column takes beside its text, and those after which texts are broken."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a grid; numbers are right-aligned and sorted as numbers."""

    name: str
    number: bool = False


def text_columns(*names: str) -> list[Column]:
    """Return columns of text."""
    return [Column(name=name) for name in names]


def number_columns(*names: str) -> list[Column]:
    """Return columns of numbers."""
    return [Column(name=name, number=True) for name in names]


@dataclass(frozen=True)
class GridCell:
    """A cell of a grid; rows are sorted by `value`, None last."""

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
    """Preformatted text with a label."""

    kind: ClassVar[str] = "code"
    label: str
    text: str


@dataclass(frozen=True, kw_only=True)
class FigureBlock:
    """A figure with a caption, and a text alternative for screen readers in `alt`."""

    kind: ClassVar[str] = "figure"
    data: str
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table. The first `heads` columns are row headers; `sorts` and `filters` let readers sort and filter rows."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[GridCell]]
    heads: int = 1
    sorts: bool = False
    filters: bool = False

    @property
    def is_narrow(self) -> bool:
        """Return whether the table fits beside another block where the page has room for two."""
        widths = [max(len(word) for word in (*column.name.split(), "")) for column in self.columns]
        for row in self.rows:
            widths = [max(width, min(len(cell.text), LINE)) for width, cell in zip(widths, row, strict=True)]
        return sum(widths) + COLUMN * len(widths) <= NARROW


@dataclass(frozen=True, kw_only=True)
class Collapsible:
    """Blocks that are shown on a click on `title`."""

    kind: ClassVar[str] = "collapsible"
    title: str
    blocks: "Sequence[Block]"


Block = Text | Items | Code | FigureBlock | Grid | Collapsible


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the page; `id` is its anchor."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """The page. `missing` lists what is not finished, empty for a complete study."""

    title: str
    question: str
    answer: Sequence[str]
    sections: Sequence[Section]
    footer: str
    missing: Sequence[str] = field(default_factory=tuple)


def render(report: ReportPage) -> str:
    """Return the HTML page. All text is escaped; scripts and styles are only those of `results/templates`."""
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
    """Escape invisible characters of inserted text."""
    return printable_lines(value) if type(value) is str else value


def data_uri(content: str | bytes) -> str:
    """Return svg text or png bytes as a data URI."""
    kind, raw = ("svg+xml", content.encode()) if isinstance(content, str) else ("png", content)
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _file(name: str) -> str:
    return (resources.files("results") / "templates" / name).read_text(encoding="utf-8")
