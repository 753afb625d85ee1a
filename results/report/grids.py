"""Grids of the report: all cells, masks saved, tests, classes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results import schema
from results.report.answers import (
    arm_name,
    best_cell,
    class_records,
    format_interval,
    format_number,
    is_best,
    one_per_cell,
    select_records,
    varying_factors,
)
from results.report.page import Block, Column, Grid, GridCell, Items, Text, number_columns, text_columns
from results.schema import ComparisonRecord, direction_of, metric_title, unit_of
from results.tables.layout import study_level
from results.tables.sentences import (
    baseline_sizes,
    cell_key,
    full_note,
    is_baseline,
    is_significant,
    label_equivalence_sentences,
    labels_interval,
    p_text,
    rounded_labels,
    undefined_sentences,
)

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TESTS = 400
MAX_ARMS = 40
"""Maximum rows of the tables of tests and of classes."""


def main_grid(comparisons: "pa.Table") -> Grid:
    """Return a row for each cell and baseline: mean IoU, Dice, the difference, its test and claim."""
    records = select_records(comparisons)
    factors = varying_factors(records)
    several = len({record["baseline"] for record in records}) > 1
    dice = {_row_key(record): record for record in select_records(comparisons, metric="dice", aggregation="case")}
    best = best_cell(records)
    columns = [
        *_cell_columns(factors),
        *number_columns("mean IoU (pooled)", "95 % interval", "Dice (per case)", "runs"),
        *text_columns(*(["baseline"] if several else [])),
        *number_columns("difference", "adjusted p", "better / equivalent / worse", "effect size"),
        *text_columns("generalises to", "note"),
    ]
    rows = [_row(record, factors, dice.get(_row_key(record)), best, several=several) for record in records]
    caption = " ".join(_caption(records, several=several))
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True)


def series_grid(records: Sequence[ComparisonRecord], name: str) -> Grid:
    """Return a row for each cell and baseline of any one series: mean, difference, its test and claim."""
    factors = varying_factors(records)
    sized = any(record["labelled_images"] for record in records)
    best = best_cell(records)
    columns = [
        *(_cell_columns(factors) if sized else text_columns(*(factor.replace("_", " ") for factor in factors))),
        *number_columns(name, "95 % interval", "runs"),
        *text_columns("baseline"),
        *number_columns("difference", "adjusted p", "better / equivalent / worse"),
        *text_columns("generalises to", "note"),
    ]
    rows = [
        [
            *_cell_values(record, factors)[: None if sized else len(factors)],
            GridCell(format_number(record["mean"]), record["mean"], strong=is_best(record, best)),
            _interval(record),
            _integer(record["n"]),
            GridCell(record["baseline"]),
            _number(record["difference"], "+"),
            _p_value(record["p_adjusted"], strong=is_significant(record)),
            GridCell(_probabilities(record), record["p_better"]),
            GridCell(record["generalises_to"] or ""),
            GridCell(full_note(record)),
        ]
        for record in records
    ]
    caption = f"{name}; the best mean is bold. p is adjusted for the number of comparisons (Holm); bold below 0.05."
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True)


def _caption(records: Sequence[ComparisonRecord], *, several: bool) -> Iterator[str]:
    named = next((record["baseline"] for record in records if record["baseline"]), "")
    yield "All cells, on the test images. Runs are folds times seeds; the best mean is bold."
    if named:
        yield (
            "Differences are to the baseline of the row." if several else f"Differences are to the baseline ({named})."
        )
    yield "p is adjusted for the number of comparisons (Holm); bold below 0.05."
    rope = next((record["rope"] for record in records if record["p_equivalent"] is not None), None)
    if rope is not None:
        yield (
            "Better, equivalent and worse are probabilities; equivalent means a difference of at most "
            f"{rope:g} in either direction."
        )


def _row(
    record: ComparisonRecord,
    factors: Sequence[str],
    dice: ComparisonRecord | None,
    best: ComparisonRecord | None,
    *,
    several: bool,
) -> list[GridCell]:
    return [
        *_cell_values(record, factors),
        GridCell(format_number(record["mean"]), record["mean"], strong=is_best(record, best)),
        _interval(record),
        _number(dice["mean"] if dice else None),
        _integer(record["n"]),
        *([GridCell(record["baseline"])] if several else []),
        _number(record["difference"], "+"),
        _p_value(record["p_adjusted"], strong=is_significant(record)),
        GridCell(_probabilities(record), record["p_better"]),
        GridCell("" if record["effect_size"] is None else f"{record['effect_size']:+.2f}", record["effect_size"]),
        GridCell(record["generalises_to"] or ""),
        GridCell(full_note(record)),
    ]


def _cell_columns(factors: Sequence[str]) -> list[Column]:
    """Return the columns that name a cell: its factors and labelled images."""
    return [*text_columns(*(name.replace("_", " ") for name in factors)), *number_columns("labelled images")]


def _cell_values(record: ComparisonRecord, factors: Sequence[str]) -> list[GridCell]:
    """Return the values of `_cell_columns`."""
    return [*(GridCell(str(record[name])) for name in factors), _integer(record["labelled_images"])]


def _probabilities(record: ComparisonRecord) -> str:
    """Return the probabilities of better, equivalent and worse in percent, "" if they are undefined."""
    values = [record[name] for name in ("p_better", "p_equivalent", "p_worse")]
    return "" if None in values else " / ".join(f"{100 * value:.0f} %" for value in values)


def _row_key(record: ComparisonRecord) -> tuple[Any, ...]:
    return *cell_key(record), record["baseline"]


def labels_saved(comparisons: "pa.Table") -> list[Block]:
    """Return how many masks the baseline would need for the same mean IoU, in sentences and as a grid."""
    records = select_records(comparisons)
    compared = [record for record in records if record["baseline"] and not is_baseline(record)]
    if not compared:
        return [Text(text="No arm is compared with a baseline, so masks saved are not known.")]
    factors = varying_factors(records)
    columns = [
        *_cell_columns(factors),
        *number_columns("needed by the baseline", "95 % interval", "saved", "adjusted p"),
        *text_columns("baseline"),
    ]
    rows = [
        [
            *_cell_values(record, factors),
            *_labels(record, baseline_sizes(record, records)),
            _p_value(record["p_adjusted"], strong=is_significant(record)),
            GridCell(record["baseline"]),
        ]
        for record in compared
    ]
    caption = (
        "Masks that the baseline would need for the same mean IoU. Masks saved are given only where the difference "
        "with equally many masks is significant."
    )
    return [
        _summary(records),
        Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True),
        Text(
            text="Between the numbers of masks that were measured, the baseline's curve is interpolated linearly in "
            "their logarithm. It is not extrapolated."
        ),
    ]


def _summary(records: Sequence[ComparisonRecord]) -> Block:
    """Return the sentences on masks saved, or why there is none."""
    sentences = label_equivalence_sentences(records)
    if sentences:
        return Items(items=sentences)
    if any(is_significant(record) for record in records):
        return Text(text="Masks saved could not be tested.")
    return Text(text="No difference with equally many masks is significant, so masks saved are not stated.")


def _labels(record: ComparisonRecord, sizes: Sequence[int]) -> list[GridCell]:
    """Return what the baseline needs, the interval of that, and masks saved."""
    side = record["labels_equivalent_side"]
    if not side or not sizes:
        return [GridCell("not tested"), GridCell(""), GridCell("")]
    # Values outside the measured range are sorted before or after it.
    low, high = min(sizes) - 1, max(sizes) + 1
    match side:
        case "above":
            needed = GridCell(f"more than {max(sizes)}", high)
        case "below":
            needed = GridCell(f"fewer than {min(sizes)}", low)
        case _:
            value = record["labels_equivalent"]
            needed = GridCell(rounded_labels(value, record, sizes), value)
    saved = record["labels_saved"]
    sign = "" if saved is None else "+" if saved > 0 else "-"
    return [
        needed,
        GridCell(labels_interval(record, sizes), max(low, record["labels_equivalent_low"])),
        GridCell("" if saved is None else sign + rounded_labels(abs(saved), record, sizes), saved),
    ]


def _p_value(p: float | None, *, strong: bool = False) -> GridCell:
    return GridCell("" if p is None else p_text(p), p, strong=strong)


def grid_of_tests(tests: "pa.Table") -> Grid | None:
    """Return every test of the headline metric with its claim.

    None without tests, above `MAX_TESTS`, and for tests of an older version.
    """
    import pyarrow.compute as pc

    if not set(schema.paired_tests().names) <= set(tests.column_names):
        return None
    condition = (pc.field("split") == "test") & (pc.field("class") == "macro") & (pc.field("metric") == "mean_iou")
    records = tests.filter(condition).to_pylist()
    if not 0 < len(records) <= MAX_TESTS:
        return None
    factors = varying_factors(records)
    columns = [
        *_cell_columns(factors),
        *number_columns("difference", "95 % interval", "p", "adjusted p", "pairs"),
        *text_columns("paired unit", "generalises to", "test", "note"),
    ]
    rows = [
        [
            *_cell_values(record, factors),
            _number(record["difference"], "+"),
            _interval(record),
            _p_value(record["p"]),
            _p_value(record["p_adjusted"]),
            _integer(record["pairs"]),
            GridCell(f"{record['unit']} ({record['aggregation']})"),
            GridCell(record["generalises_to"] or ""),
            GridCell(record["test"]),
            GridCell(record["note"]),
        ]
        for record in records
    ]
    caption = (
        'All tests of mean IoU against the baseline. The column "generalises to" says whether a test is about newly '
        "trained models (new training sets), about these trained models with new patients, or about one pretraining "
        "run only."
    )
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True)


def class_grid(comparisons: "pa.Table", metric: str) -> Grid | None:
    """Return each arm's mean by class at the most labelled images, the best arms first; None without classes."""
    records = one_per_cell(select_records(comparisons, metric=metric))
    if not records:
        return None
    level = study_level(records)
    max_level = max(record[level] for record in records)
    factors = varying_factors(records)
    of_classes = [record for record in class_records(comparisons, metric) if record[level] == max_level]
    names = dict.fromkeys(record["class"] for record in of_classes)
    classes = [name for name in names if name not in ("macro", "weighted")]
    by_arm_and_class = {(arm_name(record, factors), record["class"]): record for record in of_classes}
    arms = sorted(
        (record for record in records if record[level] == max_level),
        key=lambda record: -direction_of(record) * (record["mean"] if record["mean"] is not None else -1.0),
    )
    rows = [
        [
            GridCell(arm_name(arm, factors)),
            *(_class_value(by_arm_and_class.get((arm_name(arm, factors), name))) for name in ("macro", *classes)),
        ]
        for arm in arms[:MAX_ARMS]
    ]
    cut = f" The best {MAX_ARMS} of {len(arms)} arms." if len(arms) > MAX_ARMS else ""
    title = metric_title(metric, unit_of(of_classes))
    caption = f"{title} of each class, mean (95 % interval), with the most labelled images.{cut}"
    shown = [record for record in of_classes if record["class"] in ("macro", *classes)]
    caption = " ".join([caption, *undefined_sentences(shown)])
    columns = text_columns(" / ".join(name.replace("_", " ") for name in factors))
    columns += number_columns("mean of classes", *classes)
    return Grid(caption=caption, columns=columns, rows=rows, sorts=True)


def _class_value(record: ComparisonRecord | None) -> GridCell:
    if record is None or record["mean"] is None:
        return GridCell("undefined")
    interval = format_interval(record["ci_low"], record["ci_high"])
    mean = format_number(record["mean"])
    return GridCell(f"{mean} ({interval})" if interval else mean, record["mean"])


def _number(value: float | None, sign: str = "") -> GridCell:
    return GridCell(format_number(value, sign), value)


def _integer(value: int) -> GridCell:
    return GridCell(str(value), value)


def _interval(record: ComparisonRecord) -> GridCell:
    return GridCell(format_interval(record["ci_low"], record["ci_high"]), record["ci_low"])
