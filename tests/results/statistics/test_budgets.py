"""Arms at equal hours of annotation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from results import schema
from results.metrics.formulas import FloatArray
from results.statistics.compare import compare
from results.statistics.design import Design, PlannedCell
from results.statistics.patient_level.bootstrap import interval, p_value
from tests.support.compared import SIZES, Value, design, key, results

HOURS_OF_MASK = 0.25
"""Cells of 8, 16 and 32 masks cost 2, 4 and 8 hours."""
FRACTIONS = (0.25, 0.5, 1.0)
PATHWAYS = ("none", "encode", "boxes")
PAIRS = [(fold, seed) for fold in range(5) for seed in range(2)]
Rows = dict[tuple[str, float], dict[str, Any]]


def planned(
    hours: Sequence[float], extra: Mapping[str, float] | None = None, failed: tuple[str, float] | None = None
) -> Design:
    """Return a design with budgets; pathways cost `extra` hours in addition to their masks."""
    cells = [
        PlannedCell(
            arm=key(pathway), level=fraction, labelled_fraction=fraction, labelled_images=SIZES[fraction],
            annotation_hours=SIZES[fraction] * HOURS_OF_MASK + (extra or {}).get(pathway, 0.0),
            failed=int(failed == (pathway, fraction)),
        )
        for pathway in PATHWAYS
        for fraction in FRACTIONS
    ]  # fmt: skip
    return replace(design(), cells=cells, hours=tuple(hours))


def noisy(pathway: str, fraction: float, fold: int, seed: int) -> float:
    random = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed])
    return float(0.5 + 0.1 * np.log2(fraction) + 0.02 * len(pathway) + random.normal(0, 0.05))


def rows(of: Design, value: Value = noisy, without: Sequence[tuple[str, float]] = ()) -> Rows:
    """Return the rows by pathway and hours; replicates (fold 4, seed 1) of the cells `without` are missing."""
    table = results(value, pathways=PATHWAYS)
    missing = [
        (row["pathway"], row["labelled_fraction"]) in without and (row["fold"], row["seed"]) == (4, 1)
        for row in table.to_pylist()
    ]
    budgets = compare(table.filter([not gone for gone in missing]), of).budgets
    assert budgets.schema == schema.budgets()
    return {(row["pathway"], row["hours"]): row for row in budgets.to_pylist()}


def values(pathway: str, hours: float, extra: float = 0.0) -> FloatArray:
    """Return the scores of each replicate, interpolated in log(hours) between the cells with 4 and 8 hours."""
    low, high = np.log(4 + extra), np.log(8 + extra)
    weight = (np.log(hours) - low) / (high - low)
    return np.array([(1 - weight) * noisy(pathway, 0.5, *p) + weight * noisy(pathway, 1.0, *p) for p in PAIRS])


def p_of(first: FloatArray, second: FloatArray) -> float:
    differences = first - second
    t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
    return float(2 * stats.t.sf(abs(t), 9))


def test_scores_are_interpolated_within_each_replicate() -> None:
    row = rows(planned([6.0]))["none", 6.0]
    expected = values("none", 6.0)
    mean, error = expected.mean(), expected.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    logit, half = np.log(mean / (1 - mean)), stats.t.ppf(0.975, 9) * error / (mean * (1 - mean))
    assert row["mean"] == pytest.approx(mean)
    ends = 1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(ends)
    assert (row["labelled_images"], row["labelled_fraction"]) == (24, pytest.approx(0.75))
    assert (row["unit"], row["generalises_to"]) == ("fold and seed", "new training sets")


def test_at_the_hours_of_a_cell_the_result_is_that_of_the_cell() -> None:
    of = planned([4.0])
    cell = next(
        row for row in compare(results(noisy, pathways=PATHWAYS), of).comparisons.to_pylist()
        if (row["pathway"], row["labelled_fraction"]) == ("encode", 0.5)
    )  # fmt: skip
    row = rows(of)["encode", 4.0]
    assert [row[name] for name in ("mean", "ci_low", "ci_high")] == pytest.approx(
        [cell[name] for name in ("mean", "ci_low", "ci_high")]
    )


def test_all_pairs_at_all_budgets_are_adjusted_together() -> None:
    budgets = rows(planned([5.0, 6.0]))
    pairs = [(hours, *pair) for hours in (5.0, 6.0) for pair in combinations(PATHWAYS, 2)]
    raw = [p_of(values(first, hours), values(second, hours)) for hours, first, second in pairs]
    adjusted = dict(zip(pairs, multipletests(raw, method="holm")[1], strict=True))
    for hours in (5.0, 6.0):
        means = {pathway: values(pathway, hours).mean() for pathway in PATHWAYS}
        best = max(means, key=lambda pathway: means[pathway])
        assert [pathway for pathway in PATHWAYS if budgets[pathway, hours]["best"]] == [best]
        assert budgets[best, hours]["p_to_best"] is None
        for pathway in {*PATHWAYS} - {best}:
            pair = next(pair for pair in pairs if pair[0] == hours and {*pair[1:]} == {pathway, best})
            assert budgets[pathway, hours]["p_to_best"] == pytest.approx(adjusted[pair])
            assert budgets[pathway, hours]["difference_to_best"] == pytest.approx(means[pathway] - means[best])


def test_an_arm_with_costly_pretraining_is_compared_at_fewer_masks() -> None:
    budgets = rows(planned([6.0], {"encode": 1.0}))
    assert budgets["encode", 6.0]["labelled_images"] == 20
    assert budgets["encode", 6.0]["mean"] == pytest.approx(values("encode", 6.0, 1.0).mean())


@pytest.mark.parametrize("hours", [1.9, 8.1])
def test_outside_of_its_measured_range_an_arm_has_no_result(hours: float) -> None:
    row = rows(planned([hours]))["none", hours]
    assert (row["measured"], row["mean"], row["best"], row["labelled_images"]) == (False, None, False, None)
    assert (row["hours_min"], row["hours_max"]) == (2.0, 8.0)
    assert row["note"] == "not measured with this many hours"


def test_the_only_measured_arm_is_not_called_best() -> None:
    budgets = rows(planned([3.0], {"encode": 2.0, "boxes": 2.0}))
    assert [budgets[pathway, 3.0]["measured"] for pathway in PATHWAYS] == [True, False, False]
    assert not budgets["none", 3.0]["best"]


def test_without_budgets_or_hours_there_are_no_results() -> None:
    assert not rows(planned([]))
    unknown = [replace(cell, annotation_hours=None) for cell in planned([6.0]).cells]
    assert {row["measured"] for row in rows(replace(planned([6.0]), cells=unknown)).values()} == {False}


def test_a_study_with_missing_replicates_has_no_best_arm() -> None:
    budgets = rows(planned([6.0]), without=[("boxes", 0.25)])  # not even close to the budget
    assert all(row["provisional"] and not row["best"] and row["p_to_best"] is None for row in budgets.values())
    assert budgets["none", 6.0]["mean"] is not None
    assert "provisional" in budgets["none", 6.0]["note"]


def test_an_arm_with_a_failed_replicate_close_to_the_budget_is_excluded() -> None:
    budgets = rows(planned([6.0, 3.0], failed=("encode", 1.0)), without=[("encode", 1.0)])
    out = budgets["encode", 6.0]
    assert (out["mean"], out["best"], out["p_to_best"]) == (None, False, None)
    assert out["note"] == "replicates failed: not compared"
    assert {budgets["none", 6.0]["best"], budgets["boxes", 6.0]["best"]} == {True, False}
    assert budgets["encode", 3.0]["mean"] is not None


def test_one_shared_pretraining_run_supports_no_test() -> None:
    chains = {
        row["digest"]: ("run",) for row in results(noisy, pathways=PATHWAYS).to_pylist() if row["pathway"] == "encode"
    }
    budgets = rows(replace(planned([6.0]), ancestors=chains))
    assert budgets["encode", 6.0]["generalises_to"] == "this one pretraining run"
    assert budgets["encode", 6.0]["p_to_best"] is None or budgets["encode", 6.0]["best"]
    best = next(pathway for pathway in PATHWAYS if budgets[pathway, 6.0]["best"])
    assert budgets["encode" if best != "encode" else "none", 6.0]["p_to_best"] is None


@pytest.mark.parametrize("patients", [10, 40])
def test_p_over_patients_is_below_5_percent_if_the_interval_excludes_0(patients: int) -> None:
    random = np.random.default_rng(0)
    draws = random.normal(np.linspace(-1.5, 1.5, 61), 0.4, (2000, 61))
    counts = np.full(61, patients)
    low, high = interval(draws, counts)
    p = p_value(draws, counts)
    clear = np.abs(p - 0.05) > 0.005  # both disagree in few draws
    assert ((p < 0.05) == ((low > 0) | (high < 0)))[clear].all()
    assert (p < 0.05).any()
    assert (p > 0.05).any()


def test_p_over_patients_without_differences_is_1() -> None:
    assert p_value(np.zeros((100, 1)), np.array([12])) == 1.0
    assert np.isnan(p_value(np.full((100, 1), np.nan), np.array([12])))
