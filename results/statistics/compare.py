"""Compare the cells of a study with their baselines: means, intervals, tests, equivalence, labels saved."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from results import schema
from results.metrics.formulas import FloatArray
from results.schema import SIGNIFICANT
from results.statistics.best import against_best
from results.statistics.budgets import budget_rows
from results.statistics.cells import AVERAGES, Cells, IntArray, arrange, describe
from results.statistics.design import STRONGER, TRAINING, Design
from results.statistics.estimates import holm, moments
from results.statistics.forecast.rows import forecast_rows
from results.statistics.hours import hours_equivalence
from results.statistics.inference import Comparison, Inference
from results.statistics.label_equivalence import label_equivalence
from results.statistics.notes import (
    BASELINE_FAILED,
    BASELINE_PENDING,
    EQUAL_VALUES,
    FIXED_TEST,
    ITSELF,
    NO_PAIR,
    NO_PATIENT_INTERVAL,
    NOT_COMPARED,
    PROVISIONAL,
    REPLICATES_FAILED,
    TOO_FEW_FOR_INTERVAL,
    UNDEFINED_IN,
    few_folds_note,
    first_note,
    joined,
    where_tested,
)
from results.statistics.paired.paired_tests import BaselinePair, paired_tests
from results.statistics.patient_level.inference import PatientInference
from results.statistics.patient_level.sums import ScoredReplicate
from results.statistics.replicates import ReplicateInference
from results.statistics.undefined import undefined_notes

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Adjusted(NamedTuple):
    """p adjusted over the family of a comparison, by series: of the weaker and the stronger claim, at equal hours."""

    p: FloatArray
    stronger: FloatArray
    p_hours: FloatArray


LABEL_COLUMNS = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high", "labels_equivalent_side")
HOUR_COLUMNS = (
    "hours_equivalent", "hours_equivalent_low", "hours_equivalent_high", "hours_equivalent_side", "p_hours",
)  # fmt: skip


class Tables(NamedTuple):
    """The comparisons, tests, budgets and forecasts of a study."""

    comparisons: "pa.Table"
    tests: "pa.Table"
    budgets: "pa.Table"
    forecasts: "pa.Table"


TABLE_SCHEMAS = (schema.comparisons, schema.paired_tests, schema.budgets, schema.forecasts)
"""Columns of `Tables`, as functions of the further factors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairResult:
    """The comparison of a pair of cells; `comparison` is None where the two are not compared, `note` says why.

    `equivalence` has the columns on labels and hours that the baseline needs, by name, and `p_hours` before adjustment.
    """

    pair: BaselinePair
    series: IntArray
    rows: IntArray
    comparison: Comparison | None
    equivalence: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    provisional: bool = False
    note: str = ""


def compare(results: "pa.Table", design: Design, scored: Iterable[ScoredReplicate] = ()) -> Tables:
    """Derive all tables from a results table; `scored` contains the metrics of each test image.

    Intervals and tests follow the design: see `ReplicateInference` and `PatientInference`. `p_adjusted` is Holm's over
    one baseline and series, including comparisons that lack replicates. Columns: `TABLE_SCHEMAS`.
    """
    factors = schema.factor_columns(results.column_names)
    further = factors[len(schema.FACTORS) :]
    if not results.num_rows:
        return Tables(*(columns(further).empty_table() for columns in TABLE_SCHEMAS))
    scored = list(scored)
    cells = arrange(results, factors, design)
    inference = PatientInference(cells, scored) if design.fixed_test else ReplicateInference(cells)
    pair_results = [_compare_pair(inference, pair) for pair in _pairs(cells, factors)]
    rows = describe(cells)
    adjusted = _adjusted(cells, pair_results)
    comparisons = _comparisons(inference, rows, pair_results, adjusted)
    compared = {
        pair_result.pair: (pair_result.comparison, p)
        for pair_result, (p, *_) in zip(pair_results, adjusted, strict=True)
        if pair_result.comparison is not None
    }
    tests = paired_tests(cells, compared, scored)
    tests = tests.merge(rows.drop(columns=["series"]), on="row").sort_values(["row", "baseline"], kind="stable")
    frames = comparisons, tests, budget_rows(inference), forecast_rows(cells)
    return Tables(*(as_table(frame, columns(further)) for frame, columns in zip(frames, TABLE_SCHEMAS, strict=True)))


def as_table(rows: "pd.DataFrame", columns: "pa.Schema") -> "pa.Table":
    """Return the rows as a table of exactly these columns."""
    import pyarrow as pa

    return pa.Table.from_pandas(rows[columns.names], schema=columns, preserve_index=False).replace_schema_metadata()


def _pairs(cells: Cells, factors: Sequence[str]) -> list[BaselinePair]:
    """Return each cell with each of its baselines; `baseline_cell` is -1 if the baseline is not planned."""
    by_key = cells.numbers
    pairs = []
    for family in cells.design.families:
        for size in {len(key) for pair in family.pairs.items() for key in pair} - {len(factors)}:
            raise ValueError(f"families name arms by {size} factors; allowed: {', '.join(factors)}; name each once")
        pairs += [
            BaselinePair(cell=cell, baseline_cell=by_key.get((family.pairs[arm], level), -1), baseline=family.name)
            for (arm, level), cell in by_key.items()
            if arm in family.pairs
        ]
    return pairs


def _compare_pair(inference: Inference, pair: BaselinePair) -> PairResult:
    cells = inference.cells
    if pair.baseline_cell < 0 or pair.cell == pair.baseline_cell:
        series, rows = cells.paired_rows([pair.cell])
        note = ITSELF if pair.cell == pair.baseline_cell else NO_PAIR
        provisional = bool(cells.pending[pair.cell])
        return PairResult(pair=pair, series=series, rows=rows[0], comparison=None, provisional=provisional, note=note)
    series, rows = cells.paired_rows([pair.cell, pair.baseline_cell])
    notes = {
        NOT_COMPARED: cells.failed[pair.cell] and not cells.complete[pair.cell],
        BASELINE_FAILED: cells.failed[pair.baseline_cell] and not cells.complete[pair.baseline_cell],
        PROVISIONAL: cells.pending[pair.cell],
        BASELINE_PENDING: cells.pending[pair.baseline_cell],
    }
    note = next((note for note, applies in notes.items() if applies), "")
    if note:
        provisional = note in (PROVISIONAL, BASELINE_PENDING)
        return PairResult(pair=pair, series=series, rows=rows[0], comparison=None, provisional=provisional, note=note)
    comparison = inference.compare(pair.cell, pair.baseline_cell, series)
    equivalence = _equivalence_columns(inference, pair, series)
    return PairResult(pair=pair, series=series, rows=rows[0], comparison=comparison, equivalence=equivalence)


def _comparisons(
    inference: Inference, rows: "pd.DataFrame", pairs: Sequence[PairResult], adjusted: Sequence[Adjusted]
) -> "pd.DataFrame":
    """Return one line per row and baseline."""
    cells = inference.cells
    low, high = inference.intervals()
    claims = [inference.claim(cell) for cell in range(len(cells.cells))]
    to_best, p_to_best = against_best(inference, rows["mean"].to_numpy(np.float64))
    rows = rows.assign(
        ci_low=low,
        ci_high=high,
        difference_to_best=to_best,
        p_to_best=p_to_best,
        cell_claim=[claims[cell][0] for cell in cells.cell_of],
        cell_unit=[claims[cell][1] for cell in cells.cell_of],
        cell_pending=cells.pending[cells.cell_of],
        replicate_note=_replicate_notes(cells, rows["n"].to_numpy()),
        undefined=undefined_notes(cells),
        interval_note=_interval_notes(inference, rows, low),
    )
    lines = rows.merge(_pair_columns(inference, pairs, adjusted), on="row", how="left")
    rope = np.array([cells.design.rope.half_width(metric) for metric in lines["metric"]])
    texts = ("baseline", "test", "labels_equivalent_side", "hours_equivalent_side", "answer_note")
    lines = lines.fillna(dict.fromkeys(texts, ""))
    supported = (lines["p_adjusted"] < SIGNIFICANT).to_numpy()
    lines["labels_saved"] = (lines["labels_equivalent"] - lines["labelled_images"]).where(supported)
    lines["hours_saved"] = (lines["hours_equivalent"] - lines["annotation_hours"]).where(
        supported & _hours_differ(lines)
    )
    lines["provisional"] = lines["provisional"].where(lines["provisional"].notna(), lines["cell_pending"]).astype(bool)
    for name, default in (("generalises_to", "cell_claim"), ("unit", "cell_unit")):
        lines[name] = lines[name].where(lines[name].notna(), lines[default])
    fixed = FIXED_TEST if cells.design.fixed_test else ""
    columns = lines[["cell_note", "replicate_note", "interval_note", "answer_note"]].itertuples(index=False, name=None)
    lines["note"] = ["; ".join(filter(None, (fixed, *notes))) for notes in columns]
    directions = [cells.design.direction(metric) for metric in lines["metric"]]
    units = [cells.design.metric_unit(metric) for metric in lines["metric"]]
    return lines.assign(rope=rope, direction=directions, metric_unit=units)


def _pair_columns(inference: Inference, pairs: Sequence[PairResult], adjusted: Sequence[Adjusted]) -> "pd.DataFrame":
    """Return the columns of the comparisons, one line per row and baseline."""
    import pandas as pd

    parts = [_lines(inference, pair, p) for pair, p in zip(pairs, adjusted, strict=True)]
    columns = [
        "row", "baseline", "difference", "p", "p_adjusted", "effect_size", "test", "unit", "generalises_to", "p_better",
        "p_equivalent", "p_worse", "provisional", "answer_note", *LABEL_COLUMNS, *HOUR_COLUMNS,
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns).astype({"row": np.int64})


def _adjusted(cells: Cells, pairs: Sequence[PairResult]) -> list[Adjusted]:
    """Return p of each pair, adjusted over its family: of both claims, and of the difference at equal hours."""
    adjusted: dict[int, Adjusted] = {}
    for name in dict.fromkeys(pair.pair.baseline for pair in pairs):
        family = [number for number, pair in enumerate(pairs) if pair.pair.baseline == name]
        pending = sum(pairs[number].provisional and pairs[number].note != ITSELF for number in family)
        p_values = np.full((3, len(family), len(cells.series)), np.nan)
        for position, number in enumerate(family):
            comparison, series = pairs[number].comparison, pairs[number].series
            if comparison is not None:
                p_hours = pairs[number].equivalence["p_hours"]
                p_values[:, position, series] = comparison.p, comparison.stronger, p_hours
        every_p = [holm(p, pending) for p in p_values]
        for position, number in enumerate(family):
            adjusted[number] = Adjusted(*(p[position, pairs[number].series] for p in every_p))
    return [adjusted[number] for number in range(len(pairs))]


def _lines(inference: Inference, result: PairResult, adjusted: Adjusted) -> "pd.DataFrame":
    import pandas as pd

    p_adjusted, stronger, p_hours = adjusted
    lines = pd.DataFrame({"row": result.rows}).assign(
        baseline=result.pair.baseline, provisional=result.provisional, answer_note=result.note, p_adjusted=p_adjusted
    )
    comparison = result.comparison
    if comparison is None:
        numbers = ("difference", "p", "effect_size", "p_better", "p_equivalent", "p_worse")
        empty = dict.fromkeys(numbers, np.nan) | _no_equivalence(len(lines))
        lines = lines.assign(**empty, test="", unit=None, generalises_to=None)
        return lines.assign(difference=_provisional_difference(inference.cells, result))
    promoted, pair = stronger < SIGNIFICANT, result.pair
    claims: dict[str, tuple[Any, Any]] = {
        "p": (comparison.p, comparison.stronger),
        "p_adjusted": (p_adjusted, stronger),
        "test": (comparison.test, STRONGER),
        "unit": (comparison.unit, "seed"),
        "generalises_to": (comparison.generalises_to, TRAINING + inference.suffix(pair.cell, pair.baseline_cell)),
    }
    lines = lines.assign(**{name: np.where(promoted, strong, weak) for name, (weak, strong) in claims.items()})
    few = "" if inference.design.fixed_test else few_folds_note(inference.design.folds)
    note = joined(comparison.note, where_tested(comparison.p, few))
    return lines.assign(
        difference=comparison.difference,
        effect_size=comparison.difference / np.where(np.isnan(comparison.p), np.nan, comparison.sd),
        p_better=comparison.p_better,
        p_equivalent=comparison.p_equivalent,
        p_worse=comparison.p_worse,
        answer_note=note,
        **{**result.equivalence, "p_hours": p_hours},
    )


def _provisional_difference(cells: Cells, result: PairResult) -> FloatArray | float:
    """Return the mean difference over the replicates that both cells have so far."""
    if not result.provisional or result.pair.baseline_cell < 0 or result.note == ITSELF:
        return float("nan")
    reference = cells.values[cells.row_of[result.pair.baseline_cell, result.series]]
    return moments(cells.values[result.rows] - reference)[0]


def _equivalence_columns(inference: Inference, pair: BaselinePair, series: IntArray) -> dict[str, NDArray[Any]]:
    """Return the columns on the labels and hours that the baseline needs, for complete cells."""
    cells = inference.cells
    levels = cells.levels_of(int(cells.cells["arm"].iloc[pair.baseline_cell]))
    curve = [level for level in levels if cells.complete[level]]
    columns = _no_equivalence(len(series))
    used = (cells.directions[series] != 0) & (cells.row_of[curve][:, series] >= 0).all(axis=0)
    if used.any():
        labels = label_equivalence(inference, pair.cell, curve, series[used])
        hours = hours_equivalence(inference, pair.cell, curve, series[used], labels)
        for name, values in zip((*LABEL_COLUMNS, *HOUR_COLUMNS), (*labels, *hours), strict=True):
            columns[name][used] = values
    return columns


def _no_equivalence(count: int) -> dict[str, NDArray[Any]]:
    """Return the columns on the labels and hours that the baseline needs, without values."""
    names = (*LABEL_COLUMNS, *HOUR_COLUMNS)
    return {name: np.full(count, "", object) if name.endswith("side") else np.full(count, np.nan) for name in names}


def _hours_differ(lines: "pd.DataFrame") -> "NDArray[np.bool_]":
    """Return where the cell needs other hours than the baseline for its result: by the interval and by p at 5 %."""
    own = lines["annotation_hours"]
    outside = (lines["hours_equivalent_low"] > own) | (lines["hours_equivalent_high"] < own)
    return (outside & (lines["p_hours"] < SIGNIFICANT)).to_numpy()


def _interval_notes(inference: Inference, rows: "pd.DataFrame", low: FloatArray) -> "NDArray[np.object_]":
    """Return for each row why its mean has no interval, else ""."""
    test = inference.cells.is_test[inference.cells.series_of] & inference.cells.complete[inference.cells.cell_of]
    missing = rows["mean"].notna().to_numpy() & np.isnan(low) & test
    few = rows["n"].to_numpy() < 2
    if inference.design.fixed_test:
        return first_note({NO_PATIENT_INTERVAL: missing})
    return first_note({TOO_FEW_FOR_INTERVAL: missing & few, EQUAL_VALUES: missing})


def _replicate_notes(cells: Cells, n: IntArray) -> list[str]:
    """Return for each row how many replicates are missing, failed or undefined, or average over fewer classes."""
    expected, present = cells.design.replicates, cells.present.sum(axis=1)
    averaged = _averaged_classes(cells)
    notes = []
    for row, (cell, defined) in enumerate(zip(cells.cell_of.tolist(), n.tolist(), strict=True)):
        note = [
            f"mean without {name} in {present[cell] - shown} of {present[cell]}"
            for name, series in averaged.get(int(cells.series_of[row]), {}).items()
            if cells.row_of[cell, series] >= 0 and 0 < (shown := n[cells.row_of[cell, series]]) < present[cell]
        ]
        if present[cell] < expected:
            note.append(f"{present[cell]} of {expected} replicates")
        if cells.failed[cell]:
            note.append(f"{cells.failed[cell]} of {expected} {REPLICATES_FAILED}")
        if defined < present[cell]:
            note.append(f"{UNDEFINED_IN}{present[cell] - defined} of {present[cell]}")
        notes.append("; ".join(note))
    return notes


def _averaged_classes(cells: Cells) -> dict[int, dict[str, int]]:
    """Return the series of each class, by the pooled series that is their mean.

    A class that does not occur in the test images of a replicate is undefined there, and the mean is over the others.
    """
    numbers = {tuple(key): number for number, key in enumerate(cells.series.itertuples(index=False, name=None))}
    names = list(cells.series.columns)
    class_column = names.index("class")
    class_series: dict[int, dict[str, int]] = {}
    for key, number in numbers.items():
        mean = numbers.get((*key[:class_column], "macro", *key[class_column + 1 :]))
        if key[names.index("aggregation")] == "dataset" and key[class_column] not in AVERAGES and mean is not None:
            class_series.setdefault(mean, {})[str(key[class_column])] = number
    return class_series
