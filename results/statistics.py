"""Compare cells with their baselines: means, intervals, paired tests, masks saved."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.cells import describe, numbered
from results.design import Design, arm_pairs
from results.inference import masks_needed
from results.notes import comparison_notes, curve_notes
from results.pairing import against_best, differences, over_replicates
from results.schema import direction

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray


def compare(results: "pa.Table", design: Design) -> "pa.Table":
    """Return the comparisons table of a results table.

    `mean`: seeds averaged, then folds; interval: Student t at 95 % over fold means. `sd_folds` is over fold
    means, `sd_seeds` over seed means (folds averaged). Tests: see `results.paired`. `labels_equivalent` inverts
    the isotonic fit of the baseline's means over labelled images, its ends those of the cell's own interval.
    """
    factors = schema.factor_columns(results.column_names)
    frame = numbered(results, factors, design.level)
    cells = describe(frame, design)
    pairs = arm_pairs(frame, factors, design.families)
    tests = over_replicates(differences(frame, pairs, design.level), design)
    tests = tests[["row", "baseline", "difference", "p", "p_adjusted", "effect_size", "test", "test_note"]]
    rows = cells.merge(pairs, on="arm", how="left").merge(tests, on=["row", "baseline"], how="left")
    rows = rows.merge(against_best(frame, cells, design), on="row", how="left")
    rows["itself"] = rows["arm"] == rows["baseline_arm"]
    rows["compared"] = rows["baseline"].notna() & ~rows["itself"]
    rows = rows.assign(**_labels(rows, cells))
    rows["labels_saved"] = rows["labels_equivalent"] - rows["labelled_images"]
    rows["note"] = comparison_notes(rows, design.replicates, fixed_test=design.fixed_test)
    # Lines of one series stand together: who reads one reads one part of the file.
    rows = rows.sort_values("series", kind="stable").fillna({"baseline": "", "test": ""})
    return as_table(rows, schema.comparisons(further_factors(factors)))


def _labels(rows: "pd.DataFrame", cells: "pd.DataFrame") -> "dict[str, NDArray[Any]]":
    """Look the mean and its interval up on the curve of the row's baseline."""
    curves = cells.groupby(["arm", "series"]).indices
    images, means = cells["labelled_images"].to_numpy(), cells["mean"].to_numpy(np.float64)
    found, side = np.full((len(rows), 3), np.nan), np.full(len(rows), "", dtype=object)
    wanted = rows[["mean", "ci_low", "ci_high"]].to_numpy(np.float64)
    metrics = rows["metric"].to_numpy()
    usable = (rows["compared"] & (rows["baseline_arm"] >= 0)).to_numpy()
    for key, places in rows.groupby(["baseline_arm", "series"]).indices.items():
        lines = np.asarray(places)
        inside = lines[usable[lines]]
        sign = direction(metrics[lines[0]])
        if sign and len(inside) and key in curves:
            curve = curves[key]
            # Where lower is better the interval's upper end needs the fewest labels.
            ends = wanted[inside][:, [0, 1, 2] if sign > 0 else [0, 2, 1]]
            found[inside] = masks_needed(images[curve], means[curve], ends, sign)
            side[inside] = curve_notes(sign * wanted[inside][:, 0], found[inside][:, 0], sign * means[curve])
    names = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high")
    found[np.isinf(found)] = np.nan
    return dict(zip(names, found.T, strict=True)) | {"curve_note": side}


def further_factors(factors: Sequence[str]) -> Sequence[str]:
    """Return the factors beyond those that every study has."""
    return factors[len(schema.FACTORS) :]


def as_table(rows: "pd.DataFrame", columns: "pa.Schema") -> "pa.Table":
    """Return the rows as a table of exactly these columns."""
    import pyarrow as pa

    return pa.Table.from_pandas(rows[columns.names], schema=columns, preserve_index=False).replace_schema_metadata()
