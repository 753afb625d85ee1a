"""Compare cells with their baselines: means, intervals, paired tests, masks saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from results import schema
from results.cells import describe, numbered
from results.inference import Array, holm, masks_needed, paired_t
from results.notes import comparison_notes, test_notes
from results.schema import direction

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CORRECTED = "Nadeau-Bengio corrected resampled t-test, effect size d_z"
ORDINARY = "paired t-test, effect size d_z"
ArmKey = tuple[str, ...]
"""An arm's factor values in column order."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Comparisons adjusted together: each arm and its baseline. An arm may be its own."""

    name: str
    pairs: Mapping[ArmKey, ArmKey]


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the plan knows: how many folds and seeds a cell has, and who is whose baseline.

    `level` is the column that is equal in all replicates of a cell; `notes` by digest go into its note.
    """

    folds: int
    seeds: int
    families: Sequence[Family] = ()
    fixed_test: bool = False
    level: Literal["labelled_fraction", "labelled_images"] = "labelled_fraction"
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def test(self) -> str:
        """Name the test: test sets that are the same in every fold need no fold correction."""
        return ORDINARY if self.fixed_test else CORRECTED

    @property
    def test_to_training(self) -> float:
        """Return test over training cases of a fold; it stands for how far replicates are correlated."""
        if self.fixed_test:
            return 0.0
        return 1 / (self.folds - 1) if self.folds > 1 else float("nan")


def compare(results: "pa.Table", design: Design) -> "pa.Table":
    """Return the comparisons table of a results table.

    `mean`: seeds averaged, then folds; interval: Student t at 95 % over fold means. `sd_folds` is over fold
    means, `sd_seeds` over seed means (folds averaged). Tests: see `paired_tests`. `labels_equivalent` inverts
    the isotonic fit of the baseline's means over labelled images, its ends those of the cell's own interval.
    """
    factors = schema.factor_columns(results.column_names)
    frame = numbered(results, factors, design.level)
    cells = describe(frame, design.notes)
    pairs = _pairs(frame, factors, design.families)
    rows = cells.merge(pairs, on="arm", how="left").merge(
        _tested(frame, pairs, design).drop(columns="series"), on=["row", "baseline"], how="left"
    )
    rows["itself"] = rows["arm"] == rows["baseline_arm"]
    rows["compared"] = rows["baseline"].notna() & ~rows["itself"]
    rows = rows.assign(**_labels(rows, cells))
    rows["labels_saved"] = rows["labels_equivalent"] - rows["labelled_images"]
    rows["note"] = comparison_notes(rows, design.folds * design.seeds, fixed_test=design.fixed_test)
    return _table(rows.fillna({"baseline": "", "test": ""}), schema.comparisons(_further(factors)))


def paired_tests(results: "pa.Table", design: Design) -> "pa.Table":
    """Return the tests table: one row per cell, baseline, split, aggregation, class and metric.

    Differences are paired by fold and seed. t = mean / (sd sqrt(1/n + 1/(folds - 1))) with n pairs and n - 1
    degrees of freedom (Nadeau and Bengio 2003); a fixed test set takes the ordinary paired t. `p_adjusted`
    is Holm's over one baseline, split, aggregation, class and metric; `effect_size` is d_z = mean / sd.
    """
    factors = schema.factor_columns(results.column_names)
    frame = numbered(results, factors, design.level)
    tests = _tested(frame, _pairs(frame, factors, design.families), design)
    rows = tests.drop(columns="series").merge(describe(frame, design.notes), on="row")
    rows["note"] = rows["test_note"]
    return _table(rows, schema.paired_tests(_further(factors)))


def _pairs(frame: "pd.DataFrame", factors: Sequence[str], families: Sequence[Family]) -> "pd.DataFrame":
    """Return arm, baseline (family) and baseline_arm (-1 where it has no results) by arm number."""
    import pandas as pd

    arms = frame.drop_duplicates("arm")
    numbers = dict(zip(arms[[*factors]].itertuples(index=False, name=None), arms["arm"], strict=True))
    known = [
        (numbers[arm], family.name, numbers.get(baseline, -1))
        for family in families
        for arm, baseline in family.pairs.items()
        if arm in numbers
    ]
    sizes = {len(key) for family in families for pair in family.pairs.items() for key in pair}
    for size in sizes - {len(factors)}:
        raise ValueError(f"families name arms by {size} factors; allowed: {', '.join(factors)}; name each once")
    columns = ["arm", "baseline", "baseline_arm"]
    return pd.DataFrame(known, columns=columns).astype({"arm": np.int64, "baseline_arm": np.int64})


def _tested(frame: "pd.DataFrame", pairs: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    """Test each row against each of its baselines."""
    keys = ["series", design.level, "fold", "seed"]
    reference = frame[["arm", *keys, "value"]].rename(columns={"arm": "baseline_arm", "value": "reference"})
    both = frame[["row", "arm", *keys, "value"]].merge(pairs[pairs["arm"] != pairs["baseline_arm"]], on="arm")
    both = both.merge(reference, on=["baseline_arm", *keys], how="left")
    both["difference"] = both["value"] - both["reference"]
    groups = both.groupby(["row", "baseline", "series"], sort=False)["difference"]
    tests = groups.agg(difference="mean", sd_difference="std", pairs="count").reset_index()
    mean, sd, n = (tests[name].to_numpy(np.float64) for name in ("difference", "sd_difference", "pairs"))
    tests["statistic"], tests["p"] = paired_t(mean, sd, n, design.test_to_training)
    tests["degrees_of_freedom"] = np.maximum(tests["pairs"] - 1, 0)
    tests["effect_size"] = mean / np.where(tests["p"].notna(), sd, np.nan)
    family = tests.groupby(["baseline", "series"])["p"]
    tests["p_adjusted"] = family.transform(lambda p: holm(p.to_numpy(np.float64)))
    tests["tests"] = family.transform("count")
    tests["test"] = np.where(tests["p"].notna(), design.test, "")
    return tests.assign(test_note=test_notes(tests))


def _labels(rows: "pd.DataFrame", cells: "pd.DataFrame") -> dict[str, Array]:
    """Look the mean and its interval up on the curve of the row's baseline."""
    curves = cells.set_index(["arm", "series"]).sort_index()
    found = np.full((len(rows), 3), np.nan)
    wanted = rows[["mean", "ci_low", "ci_high"]].to_numpy(np.float64)
    usable = rows.index[rows["compared"] & (rows["baseline_arm"] >= 0)]
    for _, lines in rows.loc[usable].groupby(["baseline_arm", "series"]):
        first = lines.iloc[0]
        sign = direction(first["metric"])
        key = (first["baseline_arm"], first["series"])
        if sign and key in curves.index:
            curve = curves.loc[[key]]
            # Where lower is better the interval's upper end needs the fewest labels.
            ends = wanted[lines.index][:, [0, 1, 2] if sign > 0 else [0, 2, 1]]
            found[lines.index] = masks_needed(curve["labelled_images"], curve["mean"], ends, sign)
    names = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high")
    return dict(zip(names, found.T, strict=True))


def _further(factors: Sequence[str]) -> Sequence[str]:
    return factors[len(schema.FACTORS) :]


def _table(rows: "pd.DataFrame", columns: "pa.Schema") -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pandas(rows[columns.names], schema=columns, preserve_index=False).replace_schema_metadata()
