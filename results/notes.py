"""What a reader has to know about a number, in words, in the `note` column."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from results.inference import varies

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

FIXED_TEST = "fixed test set: no fold correction"
ITSELF = "baseline itself"
NOT_REACHED = "not reached by the baseline at any size"
BELOW_CURVE = "below the baseline at every size"
FLAT_CURVE = "the baseline's curve does not rise far enough to tell masks"
NO_PAIR = "no replicate to pair with the baseline"
TOO_FEW = "n too small for a test"
RANK_TOO_FEW = "n too small for a rank test: fewer than 6 unequal pairs"
BOOTSTRAP_TOO_FEW = "n too small for a bootstrap: fewer than 10 patients"
CONSTANT = "paired differences do not vary"
SHARED_TRAINING = "folds share training images: p may be too small"
SEVERAL_IMAGES = "several images of a patient count as independent: p may be too small"


def comparison_notes(rows: "pd.DataFrame", expected: int, *, fixed_test: bool) -> list[str]:
    """Return a note a row; `expected` is the number of replicates a complete cell has."""
    shared = FIXED_TEST if fixed_test else ""
    return ["; ".join(filter(None, [shared, *_said(row, expected), *_missing(row)])) for row in rows.to_dict("records")]


def test_notes(tests: "pd.DataFrame") -> "NDArray[np.object_]":
    """Say why a test over replicates has no p, or ""."""
    pairs = tests["pairs"].to_numpy()
    constant = ~varies(tests["sd_difference"].to_numpy(), tests["difference"].to_numpy())
    reasons = {NO_PAIR: pairs == 0, TOO_FEW: pairs == 1, CONSTANT: constant}
    return first_said(reasons | {"one fold: no corrected test": tests["p"].isna().to_numpy()})


def curve_notes(
    values: "NDArray[np.float64]", needed: "NDArray[np.float64]", means: "NDArray[np.float64]"
) -> "NDArray[np.object_]":
    """Say why values, higher being better, need no number of masks on a baseline's curve, or "".

    The monotone fit can lie below single means: what one of them reaches was reached.
    """
    outside = np.isinf(needed)
    above, below = values > np.nanmax(means, initial=-np.inf), values < np.nanmin(means, initial=np.inf)
    return first_said({NOT_REACHED: outside & above, BELOW_CURVE: outside & below, FLAT_CURVE: outside})


def first_said(reasons: "Mapping[str, NDArray[np.bool_]]") -> "NDArray[np.object_]":
    """Return for each place the first text that holds there, or ""."""
    return np.select(list(reasons.values()), list(reasons), default="").astype(object)


def where_tested(p: "NDArray[np.float64]", text: str) -> "NDArray[np.object_]":
    """Return the text where there is a p."""
    return np.where(np.isnan(p), "", text).astype(object)


def incomplete(counts: "ArrayLike", expected: int, what: str) -> list[str]:
    """Say `3 of 10 WHAT` where some, but not all, are there."""
    return [f"{count} of {expected} {what}" if 0 < count < expected else "" for count in np.asarray(counts).tolist()]


def joined(*notes: "Iterable[str]") -> list[str]:
    """Join the notes of each place."""
    return ["; ".join(filter(None, parts)) for parts in zip(*notes, strict=True)]


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
    yield row["curve_note"]
