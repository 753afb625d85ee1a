"""The results table as arrays by cell (an arm at one level of labelled data), series (one metric) and replicate."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from results import schema
from results.metrics.formulas import FloatArray
from results.statistics.design import ArmKey, Design, shared_runs
from results.statistics.estimates import Labels, group_means, moments

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

IntArray = NDArray[np.int64]
AVERAGES = ("macro", "micro", "weighted")
"""Values of the column `class` that are no classes."""
CellKey = tuple[ArmKey, float]
"""An arm's key and its level of labelled data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Values of every row, that is a pair of cell and series, by replicate.

    Args:
        values: (rows, replicates), NaN where undefined or missing.
        images: (rows, replicates), number of images behind each value.
        cell_of, series_of: Cell and series of each row. Rows are sorted by series, then by cell.
        row_of: (cells, series), -1 where a cell lacks a series.
        cells: One line per cell: `arm`, `level`, sizes, `annotation_hours` (NaN if unknown), `cell_note`, and the
            values of the factors.
        series: One line per series: `study` and the columns of `schema.SERIES`.
        digests: (cells, replicates), the target stage; "" where a replicate has no results.
        failed: (cells,), number of replicates that failed permanently.
        fold, seed: (replicates,).
    """

    design: Design
    factors: tuple[str, ...]
    cells: "pd.DataFrame"
    series: "pd.DataFrame"
    values: FloatArray
    images: IntArray
    cell_of: IntArray
    series_of: IntArray
    row_of: IntArray
    digests: NDArray[np.object_]
    failed: IntArray
    fold: IntArray
    seed: IntArray

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Return which replicates have results, (cells, replicates)."""
        return np.asarray(self.digests != "", dtype=bool)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Return which cells have all their replicates."""
        return np.asarray(self.present.sum(axis=1) >= self.design.replicates)

    @cached_property
    def pending(self) -> NDArray[np.bool_]:
        """Return which cells lack replicates although none failed."""
        return np.asarray(~self.complete & (self.failed == 0))

    @cached_property
    def numbers(self) -> dict[CellKey, int]:
        """Return the number of each cell by its arm's key and level."""
        keys = zip(self.arm_keys, self.cells["level"].tolist(), strict=True)
        return {key: number for number, key in enumerate(keys)}

    def cell_of_replicate(self, replicate: schema.ReplicateRecord) -> int:
        """Return the number of a replicate's cell."""
        arm = tuple(replicate.factors[name] for name in self.factors)
        return self.numbers[arm, getattr(replicate, self.design.level)]

    @cached_property
    def series_numbers(self) -> dict[tuple[str, ...], int]:
        """Return the number of each series by split, aggregation, class and metric."""
        names = self.series[[*schema.SERIES]].itertuples(index=False, name=None)
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def series_names(self) -> list[tuple[str, ...]]:
        """Return split, aggregation, class and metric of each series."""
        return list(self.series_numbers)

    @cached_property
    def classes_by_series(self) -> dict[tuple[str, str, str], list[str]]:
        """Return the classes, without averages, by split, aggregation and metric."""
        classes: dict[tuple[str, str, str], list[str]] = {}
        for split, aggregation, class_, metric in self.series_names:
            names = classes.setdefault((split, aggregation, metric), [])
            if class_ not in AVERAGES:
                names.append(class_)
        return classes

    @cached_property
    def arm_keys(self) -> list[ArmKey]:
        """Return the factor values of each cell."""
        return list(self.cells[[*self.factors]].itertuples(index=False, name=None))

    def levels_of(self, arm: int) -> list[int]:
        """Return the cells of an arm, fewest labelled images first."""
        cells = self.cells[self.cells["arm"] == arm].sort_values("level", kind="stable")
        return [int(cell) for cell in cells.index]

    @cached_property
    def metrics(self) -> NDArray[np.object_]:
        """Return the metric of each series."""
        return np.asarray(self.series["metric"].to_numpy(dtype=object))

    @cached_property
    def directions(self) -> NDArray[np.int64]:
        """Return by series 1 where higher is better, -1 where lower is, 0 where neither is."""
        return np.array([self.design.direction(metric) for metric in self.metrics], dtype=np.int64)

    def paired_rows(self, cells: Sequence[int]) -> tuple[IntArray, IntArray]:
        """Return the series that all of the cells have, and their rows as (cells, series)."""
        rows = self.row_of[list(cells)]
        series = np.flatnonzero((rows >= 0).all(axis=0))
        return series, rows[:, series]

    @cached_property
    def is_test(self) -> NDArray[np.bool_]:
        """Return which series are of test images; validation images select epochs and thresholds."""
        return np.asarray(self.series["split"].str.startswith("test"), dtype=bool)

    @cached_property
    def groupings(self) -> list[frozenset[Labels]]:
        """Return how the replicates of each cell share pretraining stages.

        A grouping labels each replicate by the digest of one stage of its chain. With cross-validation only stages
        that several folds share count; with a fixed test set every pretraining stage does. Incomplete cells have none.
        """
        return [self._groupings(cell) if self.complete[cell] else frozenset() for cell in range(len(self.cells))]

    def _groupings(self, cell: int) -> frozenset[Labels]:
        chains = [self.design.ancestors.get(digest, ()) for digest in self.digests[cell].tolist()]
        return shared_runs(chains, self.fold.tolist(), fixed_test=self.design.fixed_test)


def arrange(results: "pa.Table", factors: Sequence[str], design: Design) -> Cells:
    """Number the arms, cells, series and replicates of a results table, and arrange its values."""
    frame: pd.DataFrame = results.to_pandas()
    keys = _cell_keys(frame, factors, design)
    frame["cell"] = _numbers(frame, [*factors, design.level], keys)
    frame["series"] = frame.groupby(["study", *schema.SERIES], sort=False).ngroup()
    frame["replicate"] = frame.groupby(["fold", "seed"]).ngroup()
    replicates = frame.drop_duplicates("replicate").sort_values("replicate")
    series = frame.drop_duplicates("series").sort_values("series")[["study", *schema.SERIES]].reset_index(drop=True)
    cells = _describe_cells(frame, factors, design, keys)
    row_of, cell_of, series_of = _rows(frame, cells=len(keys), series=len(series))
    values = np.full((len(cell_of), len(replicates)), np.nan)
    values[row_of[frame["cell"], frame["series"]], frame["replicate"]] = frame["value"].to_numpy(np.float64)
    images = np.zeros(values.shape, dtype=np.int64)
    images[row_of[frame["cell"], frame["series"]], frame["replicate"]] = frame["images"].to_numpy(np.int64)
    digests = np.full((len(keys), len(replicates)), "", dtype=object)
    first = frame.drop_duplicates(["cell", "replicate"])
    digests[first["cell"], first["replicate"]] = first["digest"].to_numpy(dtype=object)
    failed = {(cell.arm, cell.level): cell.failed for cell in design.cells}
    return Cells(
        design=design, factors=tuple(factors), cells=cells, series=series, values=values, images=images,
        cell_of=cell_of, series_of=series_of, row_of=row_of, digests=digests,
        failed=np.array([failed.get(key, 0) for key in keys], dtype=np.int64),
        fold=replicates["fold"].to_numpy(np.int64), seed=replicates["seed"].to_numpy(np.int64),
    )  # fmt: skip


def describe(cells: Cells) -> "pd.DataFrame":
    """Return one line per row: its identity, `mean`, `sd_folds`, `sd_seeds`, `n`, and `row`, `cell`, `series`, `arm`.

    `mean` is over replicates. `sd_folds` is over fold means, `sd_seeds` over seed means.
    """
    by_fold, by_seed = (group_means(cells.values, tuple(labels.tolist())) for labels in (cells.fold, cells.seed))
    sd_folds = moments(by_fold)[1]
    rows = cells.cells.iloc[cells.cell_of].reset_index(drop=True)
    rows = rows.join(cells.series.iloc[cells.series_of].reset_index(drop=True))
    return rows.assign(
        row=np.arange(len(rows)),
        cell=cells.cell_of,
        series=cells.series_of,
        mean=moments(cells.values)[0],
        sd_folds=sd_folds,
        sd_seeds=moments(by_seed)[1],
        n=(~np.isnan(cells.values)).sum(axis=1),
    )


def _cell_keys(frame: "pd.DataFrame", factors: Sequence[str], design: Design) -> list[CellKey]:
    """Return arm and level of the cells with results, then of planned cells without any."""
    groups = frame[[*factors, design.level]].drop_duplicates().itertuples(index=False, name=None)
    keys = [(tuple(group[:-1]), group[-1]) for group in groups]
    planned = [(cell.arm, cell.level) for cell in design.cells] if keys else []
    return list(dict.fromkeys([*keys, *planned]))


def _numbers(frame: "pd.DataFrame", columns: list[str], keys: Sequence[CellKey]) -> IntArray:
    """Return the cell number of each line; `keys` begin with the groups in order of appearance."""
    groups = np.asarray(frame.groupby(columns, sort=False).ngroup(), dtype=np.int64)
    assert len(keys) > groups.max(initial=-1)
    return groups


def _describe_cells(
    frame: "pd.DataFrame", factors: Sequence[str], design: Design, keys: Sequence[CellKey]
) -> "pd.DataFrame":
    """Return arm number, level, factor values, sizes and note of each cell."""
    import pandas as pd

    arms: dict[ArmKey, int] = {}
    cells = pd.DataFrame([
        {"arm": arms.setdefault(arm, len(arms)), "level": level, **dict(zip(factors, arm, strict=True))}
        for arm, level in keys
    ], columns=["arm", "level", *factors])  # fmt: skip
    replicates = frame.drop_duplicates(["cell", "replicate"])
    # Prefixes of whole patients differ in size from fold to fold, so a cell's sizes are means.
    sizes = replicates.groupby("cell")[list(schema.SIZES)].mean().reindex(range(len(keys)))
    planned = {(cell.arm, cell.level): cell for cell in design.cells}
    for number in np.flatnonzero(sizes["labelled_images"].isna()).tolist():
        cell = planned[keys[number]]
        sizes.loc[number] = [cell.labelled_fraction, cell.labelled_images]
    sizes["labelled_images"] = sizes["labelled_images"].round().astype(np.int64)
    sizes["labelled_fraction"] = sizes["labelled_fraction"].round(6)
    sizes[design.level] = [level for _, level in keys]  # the mean of equal numbers may miss their last bit
    notes_of: list[dict[str, None]] = [{} for _ in keys]
    for number, digest in zip(replicates["cell"].tolist(), replicates["digest"].tolist(), strict=True):
        notes_of[number][design.notes.get(digest, "")] = None
    hours = [planned[key].annotation_hours if key in planned else None for key in keys]
    return cells.join(sizes).assign(
        annotation_hours=np.array(hours, dtype=np.float64),
        cell_note=["; ".join(filter(None, notes)) for notes in notes_of],
    )


def _rows(frame: "pd.DataFrame", *, cells: int, series: int) -> tuple[IntArray, IntArray, IntArray]:
    """Number the pairs of cell and series that have results; a cell without results has every series."""
    has_results = np.zeros((cells, series), dtype=bool)
    has_results[frame["cell"], frame["series"]] = True
    has_results[~has_results.any(axis=1)] = True
    series_of, cell_of = np.nonzero(has_results.T)
    row_of = np.full((cells, series), -1, dtype=np.int64)
    row_of[cell_of, series_of] = np.arange(len(cell_of))
    return row_of, np.asarray(cell_of, dtype=np.int64), np.asarray(series_of, dtype=np.int64)
