"""A table as text: md, latex and html for people, json and csv for programs."""

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from results.notes import BELOW_CURVE, FLAT_CURVE, ITSELF, NOT_REACHED
from results.schema import SIGNIFICANT, factor_columns
from results.tables import Cell, Table

NOT_RUN = "not run"
MARKER = "*"
CLOSE = "†"
UNTOLD = ("", ITSELF, NOT_REACHED, BELOW_CURVE, FLAT_CURVE)
"""Notes that a cell shows by itself, or that are about labels saved."""
NUMBERS = ("metric", "mean", "ci_low", "ci_high", "n", "difference", "p", "p_adjusted", "note")
FURTHER = ("class", "aggregation", "split", "baseline", "effect_size", "labels_equivalent", "labels_saved")
TO_BEST = ("labels_equivalent_low", "labels_equivalent_high", "difference_to_best", "p_to_best")


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
    """Write a float for documents that load booktabs."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join(texts) + r" \\"

    heads = [_escaped(text) for text in (*table.rows, *table.column_labels)]
    body = _lines(table, lambda text: rf"\textbf{{{text}}}", _escaped)
    columns = "l" * len(table.rows) + "c" * len(table.column_labels)
    parts = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(f'{table.caption}; columns: {table.columns}')}.}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        line(heads),
        r"\midrule",
        *map(line, body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_escaped(text)}" for text in _footer(table)),
        r"\end{table}",
    ]
    return "\n".join([*parts, ""])


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
        told = {name: cell.record[name] for name in (*places, *NUMBERS, *FURTHER, *TO_BEST)}
        reported = {"published": cell.published, "published_by": cell.published_by}
        yield told | (reported if compared else {})


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
    marked = mean + escape(CLOSE) if cell.close and not cell.best else mean
    told = [bold(mean) if cell.best else marked, escape(_interval(record)), escape(_test(record))]
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
    """Explain the marks, count the notes of what the cells show, and give the table's own notes."""
    notes = Counter(note for cell in _cells(table) for note in cell.record["note"].split("; "))
    said = [f"{note} ({count})" for note, count in notes.items() if note not in UNTOLD]
    marked = any(MARKER in _test(cell.record) for cell in _cells(table))
    sources = dict.fromkeys(cell.published_by for cell in _cells(table) if cell.published is not None)
    return [
        *([f"{MARKER} adjusted p below {SIGNIFICANT}."] if marked else []),
        *_closeness(table),
        *([f"Notes (cells): {'; '.join(said)}."] if said else []),
        *table.notes,
        *([f"Published: {'; '.join(sources)}."] if sources else []),
    ]


def _closeness(table: Table) -> Iterator[str]:
    """Say what the mark of cells near the best means, and that others could not be held against it."""
    others = [cell for cell in _cells(table) if not cell.best and cell.record["mean"] is not None]
    if any(cell.close for cell in others):
        yield (
            f"{CLOSE} not distinguishable from the best with the same labelled data (bold): "
            f"same paired test, p adjusted by Holm over the column is {SIGNIFICANT} or more."
        )
    tested = any(cell.close is not None for cell in others)
    untested = sum(cell.close is None for cell in others)
    if tested and untested:
        yield f"Not tested against the best: {untested} cells."


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"<": "$<$", ">": "$>$", CLOSE: r"$^{\dagger}$"}
    return "".join(special.get(sign, sign) for sign in text)
