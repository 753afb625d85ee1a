"""What a reader has to know about a number, in words, in the `note` column."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from results.inference import varies
from results.schema import direction

if TYPE_CHECKING:
    import pandas as pd

FIXED_TEST = "fixed test set: no fold correction"
ITSELF = "baseline itself"
OFF_CURVE = "not on the baseline's curve"


def comparison_notes(rows: "pd.DataFrame", expected: int, *, fixed_test: bool) -> list[str]:
    """Return a note a row; `expected` is the number of replicates a complete cell has."""
    shared = FIXED_TEST if fixed_test else ""
    return ["; ".join(filter(None, [shared, *_said(row, expected), *_missing(row)])) for row in rows.to_dict("records")]


def test_notes(tests: "pd.DataFrame") -> list[str]:
    """Say why a test has no p, or ""."""
    pairs = tests["pairs"].to_numpy()
    constant = ~varies(tests["sd_difference"].to_numpy(), tests["difference"].to_numpy())
    reasons = {
        "no replicate to pair with the baseline": pairs == 0,
        "n too small for a test": pairs == 1,
        "paired differences do not vary": constant,
        "one fold: no corrected test": tests["p"].isna().to_numpy(),
    }
    return list(np.select(list(reasons.values()), list(reasons), default=""))


def _said(row: "dict[Any, Any]", expected: int) -> Iterator[str]:
    yield row["said"]
    if row["itself"]:
        yield ITSELF
    if row["replicates"] < expected:
        yield f"{row['replicates']} of {expected} replicates"
    if row["n"] < row["replicates"]:
        yield f"undefined in {row['replicates'] - row['n']} of {row['replicates']}"


def _missing(row: "dict[Any, Any]") -> Iterator[str]:
    if row["fold_means"] == 1:
        yield "n too small for an interval"
    elif row["fold_means"] and np.isnan(row["ci_low"]):
        yield "fold means do not vary"
    if not row["compared"]:
        return
    yield row["test_note"]
    if row["n"] and direction(row["metric"]) and np.isnan(row["labels_equivalent"]):
        yield OFF_CURVE
