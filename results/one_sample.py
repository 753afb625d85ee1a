"""Tests of columns of paired differences, (pairs, columns) with NaN where there is no pair, as table columns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from results import bootstrap, signed_rank
from results.inference import Array, difference_interval, hedges_g, paired_t, rounded
from results.notes import BOOTSTRAP_TOO_FEW, CONSTANT, NO_PAIR, RANK_TOO_FEW, TOO_FEW, first_said

STUDENT = "paired t-test, effect size d_z"
WILCOXON = "Wilcoxon signed rank test, effect size rank biserial"
BOOTSTRAP = "bootstrap over patients, percentile interval"
Columns = dict[str, NDArray[Any]]


def student(values: Array) -> Columns:
    """Return the paired t-test of each column, its interval, d_z and Hedges' g."""
    values = rounded(values)
    mean, sd, n = _moments(values)
    statistic, p = paired_t(mean, sd, n, 0.0)
    low, high = difference_interval(mean, sd, n, 0.0)
    effect = mean / np.where(np.isnan(p), np.nan, sd)
    return {
        **_shared(values, STUDENT),
        "statistic": statistic,
        "degrees_of_freedom": np.maximum(n - 1, 0),
        "p": p,
        "effect_size": effect,
        "hedges_g": hedges_g(effect, n - 1),
        "ci_low": low,
        "ci_high": high,
        "note": first_said({NO_PAIR: n == 0, TOO_FEW: n == 1, CONSTANT: np.isnan(p)}),
    }


def ranked(values: Array) -> Columns:
    """Return Wilcoxon's signed rank test of each column and the matched-pairs rank biserial."""
    test = signed_rank.signed_rank(values)
    n = (~np.isnan(values)).sum(axis=0)
    equal = np.where(np.isnan(test.p), 0, n - test.unequal).astype(np.int64)
    why = first_said({NO_PAIR: n == 0, RANK_TOO_FEW: np.isnan(test.p)})
    left_out = [f"{count} equal pairs left out" if count else "" for count in equal]
    return {
        **_shared(rounded(values), WILCOXON),
        "statistic": test.statistic,
        "p": test.p,
        "rank_biserial": test.rank_biserial,
        "note": np.where(np.isnan(test.p), why, left_out),
    }


def drawn(values: Array, patients: NDArray[np.int64]) -> Columns:
    """Return the bootstrap interval of each column's mean over images; `patients` (images,) numbers them from 0."""
    low, high = bootstrap.patient_interval(values, patients)
    people = bootstrap.patients_with_values(values, patients)
    return {
        **_shared(values, BOOTSTRAP),
        "pairs": people,
        "sd_difference": np.full(len(people), np.nan),
        "ci_low": low,
        "ci_high": high,
        "note": first_said({NO_PAIR: people == 0, BOOTSTRAP_TOO_FEW: np.isnan(low)}),
    }


def _shared(values: Array, test: str) -> Columns:
    mean, sd, n = _moments(values)
    nothing = np.full(len(n), np.nan)
    unsaid = ("statistic", "degrees_of_freedom", "p", "effect_size", "hedges_g", "rank_biserial", "ci_low", "ci_high")
    return {
        "test": np.full(len(n), test, dtype=object),
        "pairs": n.astype(np.int64),
        "difference": mean,
        "sd_difference": sd,
        **dict.fromkeys(unsaid, nothing),
    }


def _moments(values: Array) -> tuple[Array, Array, Array]:
    """Return mean, standard deviation and count of each column; NaN where undefined."""
    there = ~np.isnan(values)
    n = there.sum(axis=0).astype(np.float64)
    mean = np.where(there, values, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan)
    squares = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0)
    return mean, np.sqrt(squares / np.where(n > 1, n - 1, np.nan)), n
