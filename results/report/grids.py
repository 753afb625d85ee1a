"""Grids of the report: all cells, masks saved, tests, classes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results import schema
from results.report.answers import (
    arm_name,
    best_cell,
    format_interval,
    format_number,
    is_best,
    metric_title,
    one_per_cell,
    select_records,
    varying_factors,
)
from results.report.page import Block, Column, Entry, Grid, Items, Text
from results.schema import Record, direction
from results.tables.layout import study_level
from results.tables.sentences import (
    baseline_sizes,
    cell_key,
    is_baseline,
    is_significant,
    labels_interval,
    labels_sentences,
    p_text,
    rounded_labels,
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
        *(Column(name=name.replace("_", " ")) for name in factors),
        Column(name="labelled images", number=True),
        Column(name="mean IoU (pooled)", number=True),
        Column(name="95 % interval", number=True),
        Column(name="Dice (per case)", number=True),
        Column(name="runs", number=True),
        *([Column(name="baseline")] if several else []),
        Column(name="difference", number=True),
        Column(name="adjusted p", number=True),
        Column(name="better / equivalent / worse", number=True),
        Column(name="effect size", number=True),
        Column(name="generalises to"),
        Column(name="note"),
    ]
    rows = [_row(record, factors, dice.get(_row_key(record)), best, several=several) for record in records]
    caption = " ".join(_caption(records, several=several))
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True)


def _caption(records: Sequence[Record], *, several: bool) -> Iterator[str]:
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
    record: Record, factors: Sequence[str], dice: Record | None, best: Record | None, *, several: bool
) -> list[Entry]:
    return [
        *(Entry(str(record[name])) for name in factors),
        Entry(str(record["labelled_images"]), record["labelled_images"]),
        Entry(format_number(record["mean"]), record["mean"], strong=is_best(record, best)),
        Entry(format_interval(record["ci_low"], record["ci_high"]), record["ci_low"]),
        _number_entry(dice["mean"] if dice else None),
        Entry(str(record["n"]), record["n"]),
        *([Entry(record["baseline"])] if several else []),
        _number_entry(record["difference"], "+"),
        _p_entry(record),
        Entry(_probabilities(record), record["p_better"]),
        Entry("" if record["effect_size"] is None else f"{record['effect_size']:+.2f}", record["effect_size"]),
        Entry(record["generalises_to"] or ""),
        Entry(record["note"]),
    ]


def _probabilities(record: Record) -> str:
    """Return the probabilities of better, equivalent and worse in percent, "" if they are undefined."""
    values = [record[name] for name in ("p_better", "p_equivalent", "p_worse")]
    return "" if None in values else " / ".join(f"{100 * value:.0f} %" for value in values)


def _row_key(record: Record) -> tuple[Any, ...]:
    return *cell_key(record), record["baseline"]


def labels_saved(comparisons: "pa.Table") -> list[Block]:
    """Return how many masks the baseline would need for the same mean IoU, in sentences and as a grid."""
    records = select_records(comparisons)
    compared = [record for record in records if record["baseline"] and not is_baseline(record)]
    if not compared:
        return [Text(text="No arm is compared with a baseline, so masks saved are not known.")]
    factors = varying_factors(records)
    columns = [
        *(Column(name=name.replace("_", " ")) for name in factors),
        Column(name="labelled images", number=True),
        Column(name="the baseline needs", number=True),
        Column(name="95 % interval", number=True),
        Column(name="saved", number=True),
        Column(name="adjusted p", number=True),
        Column(name="baseline"),
    ]
    rows = [
        [
            *(Entry(str(record[name])) for name in factors),
            Entry(str(record["labelled_images"]), record["labelled_images"]),
            *_labels(record, baseline_sizes(record, records)),
            _p_entry(record),
            Entry(record["baseline"]),
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


def _summary(records: Sequence[Record]) -> Block:
    """Return the sentences on masks saved, or why there is none."""
    sentences = labels_sentences(records)
    if sentences:
        return Items(items=sentences)
    if any(is_significant(record) for record in records):
        return Text(text="Masks saved could not be tested.")
    return Text(text="No difference with equally many masks is significant, so masks saved are not stated.")


def _labels(record: Record, sizes: Sequence[int]) -> list[Entry]:
    """Return what the baseline needs, the interval of that, and masks saved."""
    side = record["labels_equivalent_side"]
    if not side or not sizes:
        return [Entry("not tested"), Entry(""), Entry("")]
    # Values outside the measured range are sorted before or after it.
    low, high = min(sizes) - 1, max(sizes) + 1
    match side:
        case "above":
            needed = Entry(f"more than {max(sizes)}", high)
        case "below":
            needed = Entry(f"fewer than {min(sizes)}", low)
        case _:
            value = record["labels_equivalent"]
            needed = Entry(rounded_labels(value, record, sizes), value)
    saved = record["labels_saved"]
    sign = "" if saved is None else "+" if saved > 0 else "-"
    return [
        needed,
        Entry(labels_interval(record, sizes), max(low, record["labels_equivalent_low"])),
        Entry("" if saved is None else sign + rounded_labels(abs(saved), record, sizes), saved),
    ]


def _p_entry(record: Record) -> Entry:
    p = record["p_adjusted"]
    return Entry("" if p is None else p_text(p), p, strong=is_significant(record))


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
    names = [*(name.replace("_", " ") for name in factors), "labelled images", "difference", "95 % interval", "p"]
    names += ["adjusted p", "pairs", "what is paired", "generalises to", "test", "note"]
    numbers = {"labelled images", "difference", "95 % interval", "p", "adjusted p", "pairs"}
    rows = [
        [
            *(Entry(str(record[name])) for name in factors),
            Entry(str(record["labelled_images"]), record["labelled_images"]),
            _number_entry(record["difference"], "+"),
            Entry(format_interval(record["ci_low"], record["ci_high"]), record["ci_low"]),
            *(
                Entry("" if record[name] is None else p_text(record[name]), record[name])
                for name in ("p", "p_adjusted")
            ),
            Entry(str(record["pairs"]), record["pairs"]),
            Entry(f"{record['unit']} ({record['aggregation']})"),
            Entry(record["generalises_to"] or ""),
            Entry(record["test"]),
            Entry(record["note"]),
        ]
        for record in records
    ]
    caption = (
        'All tests of mean IoU against the baseline. The column "generalises to" says whether a test is about newly '
        "trained models (new training sets), about these trained models with new patients, or about one pretraining "
        "run only."
    )
    columns = [Column(name=name, number=name in numbers) for name in names]
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True)


def class_grid(comparisons: "pa.Table", metric: str) -> Grid | None:
    """Return each arm's mean by class at the most labelled images, the best arms first; None without classes."""
    import pyarrow.compute as pc

    rows_of_metric = comparisons.filter(
        (pc.field("split") == "test") & (pc.field("aggregation") == "dataset") & (pc.field("metric") == metric)
    )
    records = one_per_cell(select_records(comparisons, metric=metric))
    if not records:
        return None
    level = study_level(records)
    max_level = max(record[level] for record in records)
    rows_of_metric = rows_of_metric.filter(pc.field(level) == max_level)
    factors = varying_factors(records)
    classes = [name for name in rows_of_metric["class"].unique().to_pylist() if name not in ("macro", "weighted")]
    by_arm_and_class = {(arm_name(record, factors), record["class"]): record for record in rows_of_metric.to_pylist()}
    arms = sorted(
        (record for record in records if record[level] == max_level),
        key=lambda record: -direction(metric) * (record["mean"] if record["mean"] is not None else -1.0),
    )
    rows = [
        [
            Entry(arm_name(arm, factors)),
            *(_class_entry(by_arm_and_class.get((arm_name(arm, factors), name))) for name in ("macro", *classes)),
        ]
        for arm in arms[:MAX_ARMS]
    ]
    cut = f" The best {MAX_ARMS} of {len(arms)} arms." if len(arms) > MAX_ARMS else ""
    caption = f"{metric_title(metric)} of each class, mean (95 % interval), with the most labelled images.{cut}"
    names = [Column(name=" / ".join(name.replace("_", " ") for name in factors))]
    names += [Column(name="mean of classes" if name == "macro" else name, number=True) for name in ("macro", *classes)]
    return Grid(caption=caption, columns=names, rows=rows, sorts=True)


def _class_entry(record: Record | None) -> Entry:
    if record is None or record["mean"] is None:
        return Entry("undefined")
    interval = format_interval(record["ci_low"], record["ci_high"])
    mean = format_number(record["mean"])
    return Entry(f"{mean} ({interval})" if interval else mean, record["mean"])


def _number_entry(value: float | None, sign: str = "") -> Entry:
    return Entry(format_number(value, sign), value)
