"""Tests of paired differences (pairs, series), NaN for missing pairs, as columns of the tests table."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.design import SIGN_FLIP
from results.statistics.estimates import hedges_g, independent, moments, rounded
from results.statistics.notes import (
    CONSTANT,
    FEW_FOR_INTERVAL,
    FEW_PATIENTS,
    NO_PAIR,
    RANK_TOO_FEW,
    TOO_FEW,
    few_patients_note,
    first_note,
)
from results.statistics.paired import signed_rank
from results.statistics.patient_level import bootstrap
from results.statistics.patient_level.permutation import sign_flip_p

STUDENT = "paired t-test, effect size d_z"
WILCOXON = "Wilcoxon signed rank test, effect size rank biserial"
Columns = dict[str, NDArray[Any]]


def t_test(values: FloatArray) -> Columns:
    """Return the paired t-test of each series, its interval, d_z and Hedges' g."""
    estimates = independent(rounded(values).T)
    low, high = estimates.interval()
    effect = estimates.mean / np.where(np.isnan(estimates.p), np.nan, estimates.sd)
    n = estimates.pairs
    return {
        **_common_columns(values, STUDENT),
        "statistic": estimates.statistic,
        "degrees_of_freedom": np.maximum(n - 1, 0),
        "p": estimates.p,
        "effect_size": effect,
        "hedges_g": hedges_g(effect, n - 1),
        "ci_low": low,
        "ci_high": high,
        "note": first_note({NO_PAIR: n == 0, TOO_FEW: n == 1, CONSTANT: np.isnan(estimates.p)}),
    }


def wilcoxon_test(values: FloatArray) -> Columns:
    """Return Wilcoxon's signed rank test of each series and the matched-pairs rank biserial."""
    test = signed_rank.signed_rank(values)
    n = (~np.isnan(values)).sum(axis=0)
    equal_pairs = np.where(np.isnan(test.p), 0, n - test.unequal).astype(np.int64)
    reasons = first_note({NO_PAIR: n == 0, RANK_TOO_FEW: np.isnan(test.p)})
    omitted = [f"{count} equal pairs left out" if count else "" for count in equal_pairs]
    return {
        **_common_columns(rounded(values), WILCOXON),
        "statistic": test.statistic,
        "p": test.p,
        "rank_biserial": test.rank_biserial,
        "note": np.where(np.isnan(test.p), reasons, omitted),
    }


def over_patients(values: FloatArray, patients: NDArray[np.int64]) -> Columns:
    """Test the sums of differences over each patient's images, and bootstrap the mean over patients.

    `values` (images, series); `patients` (images,) numbers the patients from 0. No p below six patients with a value,
    no interval below ten.
    """
    member = (np.arange(int(patients.max(initial=-1)) + 1)[:, None] == patients).astype(np.float64)
    defined = ~np.isnan(values)
    sums, counts = member @ np.where(defined, values, 0.0), member @ defined.astype(np.float64)
    weights = bootstrap.patient_weights(len(sums))
    images = weights @ counts
    draws = np.where(images > 0, weights @ sums / np.maximum(images, 1), np.nan)
    n = (counts > 0).sum(axis=0)
    low, high = (np.where(n < FEW_FOR_INTERVAL, np.nan, end) for end in bootstrap.interval(draws, n))
    notes = {few_patients_note(int(count)): n == count for count in np.unique(n) if few_patients_note(int(count))}
    all_zero = (rounded(sums) == 0).all(axis=0)
    return {
        **_common_columns(values, SIGN_FLIP),
        "pairs": n.astype(np.int64),
        "sd_difference": np.full(len(n), np.nan),
        "p": np.where((n < FEW_PATIENTS) | all_zero, np.nan, sign_flip_p(rounded(sums))),
        "ci_low": low,
        "ci_high": high,
        "note": first_note({NO_PAIR: n == 0, **notes, CONSTANT: all_zero}),
    }


def _common_columns(values: FloatArray, test: str) -> Columns:
    mean, sd, n = moments(values.T)
    nan = np.full(len(n), np.nan)
    undefined = ("statistic", "degrees_of_freedom", "p", "effect_size", "hedges_g", "rank_biserial")
    return {
        "test": np.full(len(n), test, dtype=object),
        "pairs": n.astype(np.int64),
        "difference": mean,
        "sd_difference": sd,
        **dict.fromkeys((*undefined, "ci_low", "ci_high"), nan),
    }
