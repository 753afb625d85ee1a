"""Render a table as text: md, latex and html for readers, json and csv for programs."""

import csv
import html
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from results.schema import SIGNIFICANT, ComparisonRecord, factor_columns
from results.statistics.notes import (
    BASELINE_FAILED,
    NOT_COMPARED,
    NOT_MEASURED,
    ONE_RUN_NOTES,
    UNDEFINED_IN,
    lacks_replicates,
)
from results.tables.layout import HOURS, Cell, Table
from results.tables.sentences import (
    PROBABLE,
    cell_key,
    cells_text,
    claim_sentences,
    is_baseline,
    is_equivalent,
    is_significant,
    note_counts,
    p_text,
)
from results.text import spreadsheet_cell

NOT_RUN = "not run"
FAILED = "failed"
UNDEFINED = "undefined"
MARKER = "*"
CLOSE = "†"
EQUIVALENT = "≈"
NUMBERS = ("metric", "mean", "ci_low", "ci_high", "n", "difference", "p", "p_adjusted", "note")
MORE_NUMBERS = ("class", "aggregation", "split", "baseline", "effect_size", "labels_equivalent", "labels_saved")
TO_BEST = ("labels_equivalent_low", "labels_equivalent_high", "difference_to_best", "p_to_best")
CLAIM_COLUMNS = ("generalises_to", "unit", "p_better", "p_equivalent", "p_worse", "rope", "provisional",
         "labels_equivalent_side", "undefined")  # fmt: skip
HOURS_COLUMNS = ("annotation_hours", *HOURS, "hours_equivalent_side")
BUDGET_COLUMNS = ("hours", "hours_min", "hours_max", "measured", "best")


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
    """Return a LaTeX float; the document has to load booktabs."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join(texts) + r" \\"

    heads = [_latex_escaped(text) for text in (*table.rows, *table.column_labels)]
    body = _lines(table, lambda text: rf"\textbf{{{text}}}", _latex_escaped)
    columns = "l" * len(table.rows) + "c" * len(table.column_labels)
    parts = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_escaped(f'{table.caption}; columns: {table.columns}')}.}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        line(heads),
        r"\midrule",
        *map(line, body),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_latex_escaped(text)}" for text in _footer(table)),
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
    return json.dumps([*records_of(table)], indent=2) + "\n"


def _csv(table: Table) -> str:
    text = io.StringIO()
    records = list(records_of(table))
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in record.items()} for record in records)
    return text.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
    "html": _html,
}


def records_of(table: Table) -> Iterator[dict[str, Any]]:
    """Yield each cell of a table as the formats json and csv have it."""
    has_published = any(cell.published is not None for cell in _cells(table))
    has_hours = any(cell.record.get("annotation_hours") is not None for cell in _cells(table))
    for cell in _cells(table):
        names = list(cell.record)
        keys = ("study", *factor_columns(names), "labelled_fraction", "labelled_images")
        numbers = (*NUMBERS, *MORE_NUMBERS, *TO_BEST, *CLAIM_COLUMNS)
        further = (*(HOURS_COLUMNS if has_hours else ()), *(name for name in BUDGET_COLUMNS if name in cell.record))
        columns = {name: _finite(cell.record[name]) for name in (*keys, *numbers, *further)}
        reported = {"published": cell.published, "published_by": cell.published_by}
        yield columns | (reported if has_published else {})


def _finite(value: object) -> object:
    """Return None for infinite ends of intervals, which JSON cannot represent."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(table: Table) -> Iterator[Cell]:
    return (cell for line in table.grid for cell in line if cell)


def _lines(table: Table, bold: Callable[[str], str], escape: Callable[[str], str] = str) -> Iterator[list[str]]:
    for labels, cells in zip(table.row_labels, table.grid, strict=True):
        yield [*map(escape, labels), *(_text(cell, bold, escape) for cell in cells)]


def _text(cell: Cell | None, bold: Callable[[str], str], escape: Callable[[str], str]) -> str:
    """Return `mean (low to high) +difference p [better/equivalent/worse]`, with the best mean in bold."""
    if cell is None:
        return NOT_RUN
    record = cell.record
    if record["mean"] is None:
        return _without_mean(record)
    mean = escape(_number(record["mean"]))
    marked = mean + escape(CLOSE) if cell.close and not cell.best else mean
    details = (_interval(record), _test(record), _probabilities(record))
    parts = [bold(mean) if cell.best else marked, *map(escape, details)]
    published = "" if cell.published is None else escape(f"[published {_reported(cell.published)}]")
    return " ".join(filter(None, [*parts, published]))


def _without_mean(record: ComparisonRecord) -> str:
    """Return why a cell has no mean: its replicates failed, are not finished, or are undefined."""
    if NOT_MEASURED in record["note"]:
        return "not measured"
    if UNDEFINED_IN in record["note"]:
        return UNDEFINED
    return FAILED if lacks_replicates(record["note"]) else NOT_RUN if record["provisional"] else UNDEFINED


def _interval(record: ComparisonRecord) -> str:
    return "" if record["ci_low"] is None else f"({_number(record['ci_low'])} to {_number(record['ci_high'])})"


def _test(record: ComparisonRecord) -> str:
    """Return the difference to the baseline, its marks, and the adjusted p."""
    provisional = ["provisional"] if record["provisional"] else []
    if is_baseline(record):
        return " ".join(["baseline", *provisional])
    if record["difference"] is None:
        failed = lacks_replicates(record["note"]) or BASELINE_FAILED in record["note"]
        return NOT_COMPARED if failed else "".join(provisional)
    marks = MARKER * is_significant(record) + EQUIVALENT * is_equivalent(record)
    p = record["p_adjusted"]
    tested = [] if p is None or provisional else [f"p={p_text(p)}".replace("=< ", "<")]
    return " ".join([_number(record["difference"], "+") + marks, *tested, *provisional])


def _probabilities(record: ComparisonRecord) -> str:
    """Return the probabilities of better, equivalent and worse in percent."""
    probabilities = [record[name] for name in ("p_better", "p_equivalent", "p_worse")]
    if None in probabilities or record["provisional"]:
        return ""
    return f"[{'/'.join(f'{100 * probability:.0f}' for probability in probabilities)}]"


def _reported(value: float) -> str:
    """Return a published value; large ones with the decimals of the paper."""
    return _number(value) if abs(value) < 100 else f"{value:g}"


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3f}" if abs(value) < 100 else f"{value:{sign}.0f}"


def _footer(table: Table) -> list[str]:
    """Return lines that explain marks and claims, count the notes of cells, and add the notes of the table."""
    records = [cell.record for cell in _cells(table)]
    counts = note_counts(records)
    notes = [f"{note} ({count})" for note, count in counts.items() if note not in ONE_RUN_NOTES]
    sources = dict.fromkeys(cell.published_by for cell in _cells(table) if cell.published is not None)
    return [
        *_provisional(records),
        *(f"No difference is tested ({cells_text(counts[note])}): {note}." for note in ONE_RUN_NOTES if note in counts),
        *_significance(records),
        *_best(table),
        *_closeness(table),
        *_equivalence(records),
        *claim_sentences(records),
        *([f"Notes (number of cells): {'; '.join(notes)}."] if notes else []),
        *table.notes,
        *([f"Published: {'; '.join(sources)}."] if sources else []),
    ]


def _provisional(records: Sequence[ComparisonRecord]) -> Iterator[str]:
    provisional = {cell_key(record) for record in records if record["provisional"]}
    if provisional:
        yield (
            f"Provisional: {len(provisional)} of {len({cell_key(record) for record in records})} cells, or their "
            "baselines, lack replicates. These cells are not tested, and no best mean is marked in their columns. "
            "Differences are over the replicates that both have."
        )


def _significance(records: Sequence[ComparisonRecord]) -> Iterator[str]:
    if any(is_significant(record) for record in records):
        yield f"The sign {MARKER} marks differences with an adjusted p below {SIGNIFICANT}."


def _equivalence(records: Sequence[ComparisonRecord]) -> Iterator[str]:
    shown = [record for record in records if _probabilities(record)]
    if shown:
        ropes = " or ".join(dict.fromkeys(f"{record['rope']:g}" for record in shown))
        yield (
            "[better/equivalent/worse]: probabilities, in percent, of how the cell compares with its baseline. "
            f"Equivalent means a difference of at most {ropes} in either direction."
        )
    if any(is_equivalent(record) for record in shown):
        yield f"The sign {EQUIVALENT} marks cells that are equivalent with a probability of at least {PROBABLE:g}."


def _best(table: Table) -> Iterator[str]:
    if any(cell.best for cell in _cells(table)):
        yield "Bold marks the best mean of a column, which by itself is no evidence of a difference."


def _closeness(table: Table) -> Iterator[str]:
    """Explain the mark of cells close to the best, and count the cells that were not tested against it."""
    columns = [[cell for cell in column if cell] for column in zip(*table.grid, strict=True)]
    not_best = [cell for column in columns if any(cell.best for cell in column) for cell in column if not cell.best]
    if any(cell.close for cell in not_best):
        yield (
            f"The sign {CLOSE} marks cells that do not differ significantly from the best of their column, which does "
            f"not show that they are equal: by the same paired test, p adjusted by Holm over {table.pairs} is "
            f"{SIGNIFICANT} or more."
        )
    untested = {cell_key(cell.record) for cell in not_best if cell.close is None and cell.record["mean"] is not None}
    if untested and any(cell.close is not None for cell in not_best):
        yield f"Cells not tested against the best of their column: {len(untested)}."


def _latex_escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {sign: "\\" + sign for sign in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}
    special |= {CLOSE: r"$^{\dagger}$", EQUIVALENT: r"$\approx$"}
    return "".join(special.get(sign, sign) for sign in text)
