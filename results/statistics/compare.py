"""Compare the cells of a study with their baselines: means, intervals, tests, equivalence, labels saved."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from results import schema
from results.schema import SIGNIFICANT
from results.statistics.best import against_best
from results.statistics.cells import Cells, Numbers, arrange, describe
from results.statistics.design import STRONGER, TRAINING, Design
from results.statistics.estimates import Array, holm, moments
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
    few_folds_note,
    first_note,
    joined,
    where_tested,
)
from results.statistics.paired_tests import Pair, paired_tests
from results.statistics.patient_level.inference import PatientInference
from results.statistics.patient_level.sums import ScoredReplicate
from results.statistics.replicates import ReplicateInference

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


AVERAGES = ("macro", "micro", "weighted")
Adjusted = tuple[Array, Array]
"""p adjusted over the family of a comparison, of the weaker and of the stronger claim, by series."""


class Tables(NamedTuple):
    """The comparisons and the tests of a study."""

    comparisons: "pa.Table"
    tests: "pa.Table"


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """A pair of cells and what can be said of it; `comparison` is None where the two are not compared."""

    pair: Pair
    series: Numbers
    rows: Numbers
    comparison: Comparison | None
    provisional: bool = False
    note: str = ""


def compare(results: "pa.Table", design: Design, scored: Iterable[ScoredReplicate] = ()) -> Tables:
    """Derive both tables from a results table; `scored` holds the single test images of its replicates.

    Intervals and tests follow the design: see `ReplicateInference` and `PatientInference`. `p_adjusted` is Holm's over
    one baseline and series, comparisons that lack replicates counted. Columns: `schema.comparisons`, `schema.tests`.
    """
    factors = schema.factor_columns(results.column_names)
    further = factors[len(schema.FACTORS) :]
    if not results.num_rows:
        return Tables(schema.comparisons(further).empty_table(), schema.paired_tests(further).empty_table())
    scored = list(scored)
    cells = arrange(results, factors, design)
    inference = PatientInference(cells, scored) if design.fixed_test else ReplicateInference(cells)
    answers = [_answer(inference, pair) for pair in _pairs(cells, factors)]
    rows = describe(cells)
    adjusted = _adjusted(cells, answers)
    comparisons = _comparisons(inference, rows, answers, adjusted)
    compared = {
        answer.pair: (answer.comparison, p)
        for answer, (p, _) in zip(answers, adjusted, strict=True)
        if answer.comparison is not None
    }
    tests = paired_tests(cells, compared, scored)
    tests = tests.merge(rows.drop(columns=["series"]), on="row").sort_values(["row", "baseline"], kind="stable")
    return Tables(as_table(comparisons, schema.comparisons(further)), as_table(tests, schema.paired_tests(further)))


def as_table(rows: "pd.DataFrame", columns: "pa.Schema") -> "pa.Table":
    """Return the rows as a table of exactly these columns."""
    import pyarrow as pa

    return pa.Table.from_pandas(rows[columns.names], schema=columns, preserve_index=False).replace_schema_metadata()


def _pairs(cells: Cells, factors: Sequence[str]) -> list[Pair]:
    """Return each cell with each of its baselines; `other` is -1 where the baseline is not planned."""
    by_key = cells.numbers
    pairs = []
    for family in cells.design.families:
        for size in {len(key) for pair in family.pairs.items() for key in pair} - {len(factors)}:
            raise ValueError(f"families name arms by {size} factors; allowed: {', '.join(factors)}; name each once")
        pairs += [
            Pair(cell=number, other=by_key.get((family.pairs[arm], level), -1), baseline=family.name)
            for (arm, level), number in by_key.items()
            if arm in family.pairs
        ]
    return pairs


def _answer(inference: Inference, pair: Pair) -> Answer:
    cells = inference.cells
    if pair.other < 0 or pair.cell == pair.other:
        series, rows = cells.paired_rows([pair.cell])
        note = ITSELF if pair.cell == pair.other else NO_PAIR
        provisional = bool(cells.pending[pair.cell])
        return Answer(pair=pair, series=series, rows=rows[0], comparison=None, provisional=provisional, note=note)
    series, rows = cells.paired_rows([pair.cell, pair.other])
    states = {
        NOT_COMPARED: cells.failed[pair.cell] and not cells.complete[pair.cell],
        BASELINE_FAILED: cells.failed[pair.other] and not cells.complete[pair.other],
        PROVISIONAL: cells.pending[pair.cell],
        BASELINE_PENDING: cells.pending[pair.other],
    }
    note = next((note for note, applies in states.items() if applies), "")
    if note:
        provisional = note in (PROVISIONAL, BASELINE_PENDING)
        return Answer(pair=pair, series=series, rows=rows[0], comparison=None, provisional=provisional, note=note)
    comparison = inference.compare(pair.cell, pair.other, series)
    return Answer(pair=pair, series=series, rows=rows[0], comparison=comparison)


def _comparisons(
    inference: Inference, rows: "pd.DataFrame", answers: Sequence[Answer], adjusted: Sequence[Adjusted]
) -> "pd.DataFrame":
    """Return one line a row and baseline."""
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
        interval_note=_interval_notes(inference, rows, low),
    )
    lines = rows.merge(_answers(inference, answers, adjusted), on="row", how="left")
    rope = np.array([cells.design.rope.of(metric) for metric in lines["metric"]])
    lines = lines.fillna({"baseline": "", "test": "", "side": "", "answer_note": ""})
    lines["labels_equivalent_side"] = lines["side"]
    supported = (lines["p_adjusted"] < SIGNIFICANT).to_numpy()
    lines["labels_saved"] = (lines["labels_equivalent"] - lines["labelled_images"]).where(supported)
    lines["provisional"] = lines["provisional"].where(lines["provisional"].notna(), lines["cell_pending"]).astype(bool)
    for name, default in (("generalises_to", "cell_claim"), ("unit", "cell_unit")):
        lines[name] = lines[name].where(lines[name].notna(), lines[default])
    fixed = FIXED_TEST if cells.design.fixed_test else ""
    columns = lines[["cell_note", "replicate_note", "interval_note", "answer_note"]].itertuples(index=False, name=None)
    lines["note"] = ["; ".join(filter(None, (fixed, *notes))) for notes in columns]
    return lines.assign(rope=rope)


def _answers(inference: Inference, answers: Sequence[Answer], adjusted: Sequence[Adjusted]) -> "pd.DataFrame":
    """Return one line a row and baseline of what is said of it."""
    import pandas as pd

    parts = [_lines(inference, answer, *p) for answer, p in zip(answers, adjusted, strict=True)]
    columns = [
        "row", "baseline", "difference", "p", "p_adjusted", "effect_size", "test", "unit", "generalises_to", "p_better",
        "p_equivalent", "p_worse", "provisional", "labels_equivalent", "labels_equivalent_low",
        "labels_equivalent_high", "side", "answer_note",
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns).astype({"row": np.int64})


def _adjusted(cells: Cells, answers: Sequence[Answer]) -> list[Adjusted]:
    """Return for each answer p adjusted over its family, of the weaker and of the stronger claim."""
    adjusted: dict[int, tuple[Array, Array]] = {}
    for name in dict.fromkeys(answer.pair.baseline for answer in answers):
        family = [number for number, answer in enumerate(answers) if answer.pair.baseline == name]
        pending = sum(answers[number].provisional and answers[number].note != ITSELF for number in family)
        every = np.full((2, len(family), len(cells.series)), np.nan)
        for place, number in enumerate(family):
            comparison = answers[number].comparison
            if comparison is not None:
                every[:, place, answers[number].series] = comparison.p, comparison.stronger
        weaker, stronger = (holm(p, pending) for p in every)
        for place, number in enumerate(family):
            adjusted[number] = weaker[place, answers[number].series], stronger[place, answers[number].series]
    return [adjusted[number] for number in range(len(answers))]


def _lines(inference: Inference, answer: Answer, p_adjusted: Array, stronger: Array) -> "pd.DataFrame":
    import pandas as pd

    lines = pd.DataFrame({"row": answer.rows}).assign(
        baseline=answer.pair.baseline, provisional=answer.provisional, answer_note=answer.note, p_adjusted=p_adjusted
    )
    comparison = answer.comparison
    if comparison is None:
        numbers = ("difference", "p", "effect_size", "p_better", "p_equivalent", "p_worse", "labels_equivalent",
                   "labels_equivalent_low", "labels_equivalent_high")  # fmt: skip
        lines = lines.assign(**dict.fromkeys(numbers, np.nan), test="", side="", unit=None, generalises_to=None)
        return lines.assign(difference=_provisional_difference(inference.cells, answer))
    promoted = stronger < SIGNIFICANT
    claims: dict[str, tuple[Any, Any]] = {
        "p": (comparison.p, comparison.stronger),
        "p_adjusted": (p_adjusted, stronger),
        "test": (comparison.test, STRONGER),
        "unit": (comparison.unit, "seed"),
        "generalises_to": (comparison.generalises_to, TRAINING + inference.suffix(answer.pair.cell, answer.pair.other)),
    }
    lines = lines.assign(**{name: np.where(promoted, strong, weak) for name, (weak, strong) in claims.items()})
    few = "" if inference.design.fixed_test else few_folds_note(inference.design.folds)
    note = joined(comparison.note, where_tested(comparison.p, few))
    labels = _label_columns(inference, answer)
    return lines.assign(
        difference=comparison.difference,
        effect_size=comparison.difference / np.where(np.isnan(comparison.p), np.nan, comparison.sd),
        p_better=comparison.p_better,
        p_equivalent=comparison.p_equivalent,
        p_worse=comparison.p_worse,
        answer_note=note,
        **labels,
    )


def _provisional_difference(cells: Cells, answer: Answer) -> Array | float:
    """Return the mean difference over the replicates that both cells have so far."""
    if not answer.provisional or answer.pair.other < 0 or answer.note == ITSELF:
        return float("nan")
    reference = cells.values[cells.row_of[answer.pair.other, answer.series]]
    return moments(cells.values[answer.rows] - reference)[0]


def _label_columns(inference: Inference, answer: Answer) -> dict[str, NDArray[Any]]:
    cells, pair = inference.cells, answer.pair
    levels = cells.levels_of(int(cells.cells["arm"].iloc[pair.other]))
    curve = [level for level in levels if cells.complete[level]]
    empty = np.full(len(answer.series), np.nan)
    columns: dict[str, NDArray[Any]] = {
        "labels_equivalent": empty.copy(), "labels_equivalent_low": empty.copy(),
        "labels_equivalent_high": empty.copy(), "side": np.full(len(empty), "", dtype=object),
    }  # fmt: skip
    used = (cells.directions[answer.series] != 0) & (cells.row_of[curve][:, answer.series] >= 0).all(axis=0)
    if used.any():
        found = label_equivalence(inference, pair.cell, curve, answer.series[used])
        for name, values in zip(columns, found, strict=True):
            columns[name][used] = values
    return columns


def _interval_notes(inference: Inference, rows: "pd.DataFrame", low: Array) -> "NDArray[np.object_]":
    """Return by row why a mean has no interval."""
    test = inference.cells.is_test[inference.cells.series_of] & inference.cells.complete[inference.cells.cell_of]
    missing = rows["mean"].notna().to_numpy() & np.isnan(low) & test
    few = rows["n"].to_numpy() < 2
    if inference.design.fixed_test:
        return first_note({NO_PATIENT_INTERVAL: missing})
    return first_note({TOO_FEW_FOR_INTERVAL: missing & few, EQUAL_VALUES: missing})


def _replicate_notes(cells: Cells, n: Numbers) -> list[str]:
    """Return by row how many replicates are missing, failed or undefined, or average over fewer classes."""
    expected, present = cells.design.replicates, cells.present.sum(axis=1)
    averaged = _averaged_classes(cells)
    notes = []
    for row, (cell, defined) in enumerate(zip(cells.cell_of.tolist(), n.tolist(), strict=True)):
        note = [
            f"mean without {name} in {present[cell] - shown} of {present[cell]}"
            for name, other in averaged.get(int(cells.series_of[row]), {}).items()
            if cells.row_of[cell, other] >= 0 and 0 < (shown := n[cells.row_of[cell, other]]) < present[cell]
        ]
        if present[cell] < expected:
            note.append(f"{present[cell]} of {expected} replicates")
        if cells.failed[cell]:
            note.append(f"{cells.failed[cell]} of {expected} {REPLICATES_FAILED}")
        if defined < present[cell]:
            note.append(f"undefined in {present[cell] - defined} of {present[cell]}")
        notes.append("; ".join(note))
    return notes


def _averaged_classes(cells: Cells) -> dict[int, dict[str, int]]:
    """Return the series of each class by the pooled series that is a mean over classes.

    A class that the test images of a replicate do not show is undefined there, and its mean is over the others.
    """
    places = {tuple(place): number for number, place in enumerate(cells.series.itertuples(index=False, name=None))}
    names = list(cells.series.columns)
    at = names.index("class")
    found: dict[int, dict[str, int]] = {}
    for place, number in places.items():
        mean = places.get((*place[:at], "macro", *place[at + 1 :]))
        if place[names.index("aggregation")] == "dataset" and place[at] not in AVERAGES and mean is not None:
            found.setdefault(mean, {})[str(place[at])] = number
    return found
