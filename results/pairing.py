"""Pair replicates by fold and seed, and test their differences."""

from typing import TYPE_CHECKING

import numpy as np

from results.design import Design
from results.inference import difference_interval, hedges_g, holm, paired_t
from results.notes import test_notes
from results.schema import Level, direction

if TYPE_CHECKING:
    import pandas as pd


def differences(frame: "pd.DataFrame", pairs: "pd.DataFrame", level: Level) -> "pd.DataFrame":
    """Return one line per replicate and baseline with `difference`, NaN where the baseline has no such replicate.

    `pairs` says by arm, or by row, which `baseline_arm` it is compared with.
    """
    keys = ["series", level, "fold", "seed"]
    by = "row" if "row" in pairs else "arm"
    reference = frame[["arm", *keys, "value"]].rename(columns={"arm": "baseline_arm", "value": "reference"})
    both = frame[["row", "arm", *keys, "value"]].merge(pairs, on=by)
    both = both[both["arm"] != both["baseline_arm"]].merge(reference, on=["baseline_arm", *keys], how="left")
    both["difference"] = both["value"] - both["reference"]
    return both


def over_replicates(both: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    """Test each row against each of its baselines, pairs being folds and seeds."""
    groups = both.groupby(["row", "baseline", "series"], sort=False)["difference"]
    tests = groups.agg(difference="mean", sd_difference="std", pairs="count").reset_index()
    mean, sd, n = (tests[name].to_numpy(np.float64) for name in ("difference", "sd_difference", "pairs"))
    tests["statistic"], tests["p"] = paired_t(mean, sd, n, design.test_to_training)
    tests["ci_low"], tests["ci_high"] = difference_interval(mean, sd, n, design.test_to_training)
    tests["degrees_of_freedom"] = np.maximum(tests["pairs"] - 1, 0)
    tests["effect_size"] = mean / np.where(tests["p"].notna(), sd, np.nan)
    tests["hedges_g"] = hedges_g(tests["effect_size"].to_numpy(), n - 1)
    tests["test"] = np.where(tests["p"].notna(), design.test, "")
    tests = adjusted(tests, ["baseline", "series"])
    return tests.assign(test_note=test_notes(tests))


def adjusted(tests: "pd.DataFrame", family: list[str]) -> "pd.DataFrame":
    """Return the tests with `p_adjusted` (Holm) within each family, and how many `tests` it was over."""
    groups = tests.groupby(family)["p"]
    return tests.assign(
        p_adjusted=groups.transform(lambda p: holm(p.to_numpy(np.float64))), tests=groups.transform("count")
    )


def against_best(frame: "pd.DataFrame", cells: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    """Return row, `difference_to_best` and `p_to_best`: each arm against the best of its series and level.

    The test is that against a baseline, with Holm over the arms of one series and level.
    """
    where = ["series", design.level]
    rows = frame.drop_duplicates("row")[["row", "arm", *where]].merge(cells[["row", "metric", "mean"]], on="row")
    sign = np.array([direction(metric) for metric in rows["metric"]], dtype=np.int64)
    ranked = rows.assign(worth=rows["mean"] * sign)[(sign != 0) & rows["mean"].notna()]
    best = ranked.loc[ranked.groupby(where, sort=False)["worth"].idxmax(), [*where, "arm"]]
    pairs = rows[["row", *where]].merge(best.rename(columns={"arm": "baseline_arm"}), on=where)
    both = differences(frame, pairs[["row", "baseline_arm"]].assign(baseline="best"), design.level)
    tests = over_replicates(both, design).merge(rows[["row", design.level]], on="row")
    tests = adjusted(tests, where).rename(columns={"difference": "difference_to_best", "p_adjusted": "p_to_best"})
    return tests[["row", "difference_to_best", "p_to_best"]]
