"""Group the results table into cells and say of each: mean, spread, interval, how complete it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from results import schema
from results.design import Design
from results.inference import t_interval

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def numbered(results: "pa.Table", factors: Sequence[str], level: schema.Level) -> "pd.DataFrame":
    """Number the groups: arm, series (one metric of a study), cell (arm x level), row (cell x series)."""
    frame: pd.DataFrame = results.to_pandas()
    groups = {
        "arm": [*factors],
        "series": ["study", *schema.SERIES],
        "cell": ["study", "arm", level],
        "row": ["cell", "series"],
    }
    for name, columns in groups.items():
        frame[name] = frame.groupby(columns, sort=False).ngroup()
    return frame


def describe(frame: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    """Return one line a row with its identity and `mean`, `sd_*`, `ci_*`, `n` and `fold_means` (counts).

    `replicates` counts those of the cell, whether the metric is defined there or not; `said` joins the design's
    notes on them.
    """
    folds = frame.groupby(["row", "fold"])["value"].mean().groupby("row").agg(["mean", "std", "count"])
    seeds = frame.groupby(["row", "seed"])["value"].mean().groupby("row").std()
    mean, sd, count = (folds[name].to_numpy(np.float64) for name in ("mean", "std", "count"))
    low, high = t_interval(mean, sd, count)
    rows = frame.drop_duplicates("row").sort_values("row")
    rows = rows.drop(columns=["updates", "fold", "seed", "value", "images", "digest", "scoring", *schema.SIZES])
    rows = rows.merge(_completeness(frame, design), on="cell", how="left")
    return rows.assign(
        mean=mean,
        sd_folds=sd,
        sd_seeds=seeds.to_numpy(),
        ci_low=low,
        ci_high=high,
        fold_means=folds["count"].to_numpy(),
        n=frame.groupby("row")["value"].count().to_numpy(),
    )


def _completeness(frame: "pd.DataFrame", design: Design) -> "pd.DataFrame":
    # Prefixes of whole patients differ in size from fold to fold, so a cell's labels are a mean.
    replicates = frame.drop_duplicates(["cell", "fold", "seed"]).copy()
    replicates["said"] = [design.notes.get(digest, "") for digest in replicates["digest"]]
    cells = replicates.groupby("cell")
    table = cells[list(schema.SIZES)].mean()
    table["labelled_images"] = table["labelled_images"].round().astype(np.int64)
    table["labelled_fraction"] = table["labelled_fraction"].round(6)
    table[design.level] = cells[design.level].first()  # the mean of equal numbers may miss their last bit
    table["replicates"] = cells.size()
    table["said"] = cells["said"].agg(lambda said: "; ".join(dict.fromkeys(filter(None, said))))
    return table.reset_index()
