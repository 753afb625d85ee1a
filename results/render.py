"""A table as text: md, latex and html for people, json and csv for programs."""

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from results.notes import ITSELF, OFF_CURVE
from results.schema import factor_columns
from results.tables import Cell, Table

NOT_RUN = "not run"
SIGNIFICANT = 0.05
MARKER = "*"
NUMBERS = ("metric", "mean", "ci_low", "ci_high", "n", "difference", "p", "p_adjusted", "note")
FURTHER = ("class", "aggregation", "split", "baseline", "effect_size", "labels_equivalent", "labels_saved")


def render(table: Table, format: str) -> str:
    """Return the table in one of `FORMATS`; raises ValueError for another."""
    if format not in FORMATS:
        raise ValueError(f"format is {format}; allowed: {', '.join(FORMATS)}; choose one")
    return FORMATS[format](table)


def _markdown(table: Table) -> str:
    lines = [[*table.rows, *table.column_labels], ["---"] * (len(table.rows) + len(table.column_labels))]
    lines += _lines(table, lambda text: f"**{text}**")
    grid = ["| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines]
    return "\n".join([f"{table.caption}; columns: {table.columns}", "", *grid, "", *_footer(table)]).rstrip() + "\n"


def _latex(table: Table) -> str:
    def line(texts: Sequence[str]) -> str:
        return " & ".join(texts) + r" \\"

    heads = [_escaped(text) for text in (*table.rows, *table.column_labels)]
    body = _lines(table, lambda text: rf"\textbf{{{text}}}", _escaped)
    caption = _escaped(" ".join([f"{table.caption}; columns: {table.columns}.", *_footer(table)]))
    top = [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{'l' * len(heads)}}}",
        r"\hline",
    ]
    rows = [line(heads), r"\hline", *map(line, body)]
    return "\n".join([*top, *rows, r"\hline", r"\end{tabular}", r"\end{table}", ""])


def _html(table: Table) -> str:
    def line(texts: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in texts) + "</tr>"

    heads = [html.escape(text) for text in (*table.rows, *table.column_labels)]
    body = _lines(table, lambda text: f"<strong>{text}</strong>", html.escape)
    caption = html.escape(f"{table.caption}; columns: {table.columns}")
    notes = [f"<p>{html.escape(text)}</p>" for text in _footer(table)]
    top = ["<table>", f"<caption>{caption}</caption>", "<thead>", line(heads, "th"), "</thead>", "<tbody>"]
    return "\n".join([*top, *(line(texts, "td") for texts in body), "</tbody>", "</table>", *notes, ""])


def _json(table: Table) -> str:
    return json.dumps([*_records(table)], indent=2) + "\n"


def _csv(table: Table) -> str:
    text = io.StringIO()
    records = list(_records(table))
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
    "html": _html,
}


def _records(table: Table) -> Iterator[dict[str, Any]]:
    compared = any(cell.published is not None for cell in _cells(table))
    for cell in _cells(table):
        names = list(cell.record)
        places = ("study", *factor_columns(names), "labelled_fraction", "labelled_images")
        told = {name: cell.record[name] for name in (*places, *NUMBERS, *FURTHER)}
        yield told | ({"published": cell.published} if compared else {})


def _cells(table: Table) -> Iterator[Cell]:
    return (cell for line in table.grid for cell in line if cell)


def _lines(table: Table, bold: Callable[[str], str], escape: Callable[[str], str] = str) -> Iterator[list[str]]:
    for labels, cells in zip(table.row_labels, table.grid, strict=True):
        yield [*map(escape, labels), *(_text(cell, bold, escape) for cell in cells)]


def _text(cell: Cell | None, bold: Callable[[str], str], escape: Callable[[str], str]) -> str:
    """Write `mean (low to high) +difference p`, the mean bold where it is the best."""
    if cell is None:
        return NOT_RUN
    record = cell.record
    if record["mean"] is None:
        return "undefined"
    mean = escape(_number(record["mean"]))
    told = [bold(mean) if cell.best else mean, escape(_interval(record)), escape(_test(record))]
    published = "" if cell.published is None else escape(f"[published {_number(cell.published)}]")
    return " ".join(filter(None, [*told, published]))


def _interval(record: Mapping[str, Any]) -> str:
    if record["ci_low"] is None:
        return ""
    return f"({_number(record['ci_low'])} to {_number(record['ci_high'])})"


def _test(record: Mapping[str, Any]) -> str:
    if ITSELF in record["note"].split("; "):
        return "baseline"
    if record["difference"] is None:
        return ""
    p = record["p_adjusted"]
    difference = _number(record["difference"], "+")
    if p is None:
        return difference
    marked = difference + MARKER * (p < SIGNIFICANT)
    return f"{marked} p<0.001" if p < 0.001 else f"{marked} p={p:.2g}"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.0f}"


def _footer(table: Table) -> list[str]:
    """Explain the marker and count the notes of what the cells show."""
    notes = Counter(note for cell in _cells(table) for note in cell.record["note"].split("; "))
    said = [f"{note} ({count})" for note, count in notes.items() if note not in ("", ITSELF, OFF_CURVE)]
    marked = any(MARKER in _test(cell.record) for cell in _cells(table))
    return [
        *([f"{MARKER} adjusted p below {SIGNIFICANT}."] if marked else []),
        *([f"Notes (cells): {'; '.join(said)}."] if said else []),
    ]


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}
    return "".join(special.get(sign, sign) for sign in text)
