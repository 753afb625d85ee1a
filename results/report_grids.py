"""The comparisons as grids of the report: every cell, masks saved, classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from results import schema
from results.notes import BELOW_CURVE, ITSELF, NOT_REACHED
from results.report import Block, Column, Entry, Grid, Items, Text
from results.report_answers import (
    Record,
    arm_name,
    best_cell,
    chosen,
    number,
    once,
    p_text,
    span,
    title,
    varying,
)
from results.schema import SIGNIFICANT, SIZES, direction, factor_columns

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TESTS = 400
MOST_ARMS = 40
"""Rows of the table by class."""


def main_grid(comparisons: "pa.Table") -> Grid:
    """Return a row a cell and baseline: mean IoU and Dice with intervals, difference, adjusted p, note."""
    records = chosen(comparisons)
    factors = varying(records)
    several = len({record["baseline"] for record in records}) > 1
    dice = {_cell(record): record for record in chosen(comparisons, metric="dice")}
    best = best_cell(records)
    columns = [
        *(Column(name=name.replace("_", " ")) for name in factors),
        Column(name="labelled images", number=True),
        Column(name="mean IoU", number=True),
        Column(name="95 % interval", number=True),
        Column(name="Dice", number=True),
        Column(name="runs", number=True),
        *([Column(name="baseline")] if several else []),
        Column(name="difference", number=True),
        Column(name="adjusted p", number=True),
        Column(name="effect size", number=True),
        Column(name="note"),
    ]
    rows = [_row(record, factors, dice.get(_cell(record)), best, several=several) for record in records]
    named = next((record["baseline"] for record in records if record["baseline"]), "")
    against = "" if several or not named else f" Differences are to the baseline ({named})."
    caption = (
        "Every cell on the test images. Runs are folds times seeds; the best mean is bold." + against
        + " p is adjusted for the number of comparisons (Holm); bold below 0.05."
    )  # fmt: skip
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True)


def _row(
    record: Record, factors: Sequence[str], dice: Record | None, best: Record | None, *, several: bool
) -> list[Entry]:
    p = record["p_adjusted"]
    mean = Entry(number(record["mean"]), record["mean"], strong=best is not None and record["mean"] == best["mean"])
    return [
        *(Entry(str(record[name])) for name in factors),
        Entry(str(record["labelled_images"]), record["labelled_images"]),
        mean,
        Entry(span(record["ci_low"], record["ci_high"]), record["ci_low"]),
        _entry(dice["mean"] if dice else None),
        Entry(str(record["n"]), record["n"]),
        *([Entry(record["baseline"])] if several else []),
        _entry(record["difference"], "+"),
        Entry("" if p is None else p_text(p), p, strong=p is not None and p < SIGNIFICANT),
        Entry("" if record["effect_size"] is None else f"{record['effect_size']:+.2f}", record["effect_size"]),
        Entry(record["note"]),
    ]


def _cell(record: Record) -> tuple[Any, ...]:
    places = [*factor_columns(list(record)), *SIZES, "baseline"]
    return tuple(record[name] for name in places)


def labels_saved(comparisons: "pa.Table") -> list[Block]:
    """Return how many masks the baseline would need for the same mean IoU, in sentences and as a grid."""
    records = chosen(comparisons)
    compared = [
        record for record in records if record["baseline"] and ITSELF not in record["note"].split("; ")
    ]  # fmt: skip
    reached = [record for record in compared if record["labels_equivalent"] is not None]
    if not compared:
        return [Text(text="No baseline was named, so no masks saved can be told.")]
    factors = varying(records)
    best = sorted(reached, key=lambda record: -record["labels_saved"])[:3]
    columns = [
        *(Column(name=name.replace("_", " ")) for name in factors),
        Column(name="labelled images", number=True),
        Column(name="the baseline needs", number=True),
        Column(name="95 % interval", number=True),
        Column(name="saved", number=True),
        Column(name="baseline"),
        Column(name="note"),
    ]
    rows = [
        [
            *(Entry(str(record[name])) for name in factors),
            Entry(str(record["labelled_images"]), record["labelled_images"]),
            _masks(record["labels_equivalent"]),
            Entry(_ends(record), record["labels_equivalent_low"]),
            _masks(record["labels_saved"], "+"),
            Entry(record["baseline"]),
            Entry("; ".join(note for note in record["note"].split("; ") if note in (NOT_REACHED, BELOW_CURVE))),
        ]
        for record in compared
    ]
    caption = "Masks the baseline would need for the same mean IoU; negative: the baseline needs fewer."
    none = Text(text="No arm's mean lies on the baseline's curve, so masks saved cannot be told.")
    return [
        Items(items=[saved_sentence(record, factors) for record in best]) if best else none,
        Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True),
        Text(text="Between the amounts that were trained the baseline's curve is interpolated, never extended."),
    ]


def saved_sentence(record: Record, factors: Sequence[str]) -> str:
    """Return the sentence of one cell."""
    saved = record["labels_saved"]
    more = f"{saved:.0f} saved" if saved > 0.5 else "none saved" if saved > -0.5 else f"{-saved:.0f} more than it needs"
    return (
        f"With {record['labelled_images']} masks, {arm_name(record, factors)} reaches what the baseline "
        f"({record['baseline']}) needs {record['labels_equivalent']:.0f} ({_ends(record)}) for: {more}."
    )


def _ends(record: Record) -> str:
    low, high = record["labels_equivalent_low"], record["labels_equivalent_high"]
    return " to ".join("not reached" if end is None else f"{end:.0f}" for end in (low, high))


def _masks(value: float | None, sign: str = "") -> Entry:
    return Entry("not reached" if value is None else f"{value:{sign}.0f}", value)


def grid_of_tests(tests: "pa.Table") -> Grid | None:
    """Return every test of the headline metric with what it generalises to; None without tests, or with too many."""
    import pyarrow.compute as pc

    if not set(schema.paired_tests().names) <= set(tests.column_names):
        return None  # an older version wrote them
    wanted = (pc.field("split") == "test") & (pc.field("class") == "macro") & (pc.field("metric") == "mean_iou")
    records = tests.filter(wanted).to_pylist()
    if not 0 < len(records) <= MOST_TESTS:
        return None
    factors = varying(records)
    names = [*(name.replace("_", " ") for name in factors), "labelled images", "difference", "95 % interval", "p"]
    names += ["adjusted p", "pairs", "what is paired", "generalises to", "test", "note"]
    numbers = {"labelled images", "difference", "95 % interval", "p", "adjusted p", "pairs"}
    rows = [
        [
            *(Entry(str(record[name])) for name in factors),
            Entry(str(record["labelled_images"]), record["labelled_images"]),
            _entry(record["difference"], "+"),
            Entry(span(record["ci_low"], record["ci_high"]), record["ci_low"]),
            *(
                Entry("" if record[name] is None else p_text(record[name]), record[name])
                for name in ("p", "p_adjusted")
            ),
            Entry(str(record["pairs"]), record["pairs"]),
            Entry(f"{record['unit']} ({record['aggregation']})"),
            Entry(record["generalises_to"]),
            Entry(record["test"]),
            Entry(record["note"]),
        ]
        for record in records
    ]
    caption = (
        "All tests of mean IoU against the baseline. Those over folds ask whether newly trained models would differ, "
        "those over test images or patients whether these very models would on new patients."
    )
    columns = [Column(name=name, number=name in numbers) for name in names]
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True)


def class_grid(comparisons: "pa.Table", metric: str) -> Grid | None:
    """Return each arm's mean by class at the most labelled images, the best arms first; None without classes."""
    import pyarrow.compute as pc

    part = comparisons.filter(
        (pc.field("split") == "test") & (pc.field("aggregation") == "dataset") & (pc.field("metric") == metric)
    )
    overall = once(chosen(comparisons, metric=metric))
    if not overall:
        return None
    most = max(record["labelled_fraction"] for record in overall)
    part = part.filter(pc.field("labelled_fraction") == most)
    factors = varying(overall)
    classes = [name for name in part["class"].unique().to_pylist() if name not in ("macro", "weighted")]
    values = {(arm_name(record, factors), record["class"]): record for record in part.to_pylist()}
    arms = sorted(
        (record for record in overall if record["labelled_fraction"] == most),
        key=lambda record: -direction(metric) * (record["mean"] if record["mean"] is not None else -1.0),
    )
    rows = [
        [
            Entry(arm_name(arm, factors)),
            *(_of_class(values.get((arm_name(arm, factors), name))) for name in ("macro", *classes)),
        ]
        for arm in arms[:MOST_ARMS]
    ]
    cut = f" The best {MOST_ARMS} of {len(arms)} arms." if len(arms) > MOST_ARMS else ""
    caption = f"{title(metric)} of each class, mean (95 % interval), with the most labelled images.{cut}"
    names = [Column(name=" / ".join(name.replace("_", " ") for name in factors))]
    names += [Column(name="mean of classes" if name == "macro" else name, number=True) for name in ("macro", *classes)]
    return Grid(caption=caption, columns=names, rows=rows, sorts=True)


def _of_class(record: Record | None) -> Entry:
    if record is None or record["mean"] is None:
        return Entry("undefined")
    inside = span(record["ci_low"], record["ci_high"])
    return Entry(f"{number(record['mean'])} ({inside})" if inside else number(record["mean"]), record["mean"])


def _entry(value: float | None, sign: str = "") -> Entry:
    return Entry(number(value, sign), value)
