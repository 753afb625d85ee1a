"""Arms at equal hours of annotation: the score of each within its measured range, and which are close to the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from results import schema
from results.metrics.formulas import FloatArray
from results.statistics.design import ONE_RUN
from results.statistics.estimates import holm
from results.statistics.inference import CurvePoint, Inference
from results.statistics.notes import NOT_COMPARED, NOT_MEASURED, PROVISIONAL, REPLICATES_FAILED

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmAtBudget:
    """An arm at one budget.

    Attributes:
        levels: Its cells of known cost, cheapest first.
        hours: (levels,), their hours of annotation.
        point: Point on its learning curve; None where the budget is outside of its measured range.
        failed: Whether replicates of the cells next to the budget failed permanently.
        mean, low, high: (series,), NaN where undefined.
        defined: (series, replicates), whether the replicate has a value.
    """

    levels: Sequence[int]
    hours: FloatArray
    point: CurvePoint | None
    failed: bool
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    defined: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class ToBest:
    """An arm compared with the best one at a budget, arrays (series,); NaN in the best arm and where not compared."""

    best: NDArray[np.bool_]
    difference: FloatArray
    p: FloatArray


def budget_rows(inference: Inference) -> "pd.DataFrame":
    """Return the rows of `schema.budgets`: each arm at each budget of the design."""
    import pandas as pd

    cells, budgets = inference.cells, inference.design.hours
    levels_of_arms = [cells.levels_of(int(arm)) for arm in dict.fromkeys(cells.cells["arm"])]
    columns = [[_arm_at(inference, levels, budget) for levels in levels_of_arms] for budget in budgets]
    comparisons = _against_best(inference, columns)
    parts = [
        _rows(inference, levels[0], arm, to_best, budget)
        for budget, arms, compared in zip(budgets, columns, comparisons, strict=True)
        for levels, arm, to_best in zip(levels_of_arms, arms, compared, strict=True)
    ]
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=schema.budgets(cells.factors[len(schema.FACTORS) :]).names)
    )


def _arm_at(inference: Inference, levels: Sequence[int], budget: float) -> ArmAtBudget:
    cells = inference.cells
    hours_of_cells = cells.cells["annotation_hours"].to_numpy(np.float64)
    known = [level for level in levels if hours_of_cells[level] > 0]
    hours = hours_of_cells[known]
    mean, low, high = (np.full(len(cells.series), np.nan) for _ in range(3))
    defined = np.zeros((len(cells.series), cells.values.shape[1]), dtype=bool)
    inside = bool(known) and hours[0] * (1 - 1e-9) <= budget <= hours[-1] * (1 + 1e-9)
    if not inside or (np.diff(hours) <= 0).any():
        return ArmAtBudget(
            levels=known, hours=hours, point=None, failed=False, mean=mean, low=low, high=high, defined=defined
        )
    point = CurvePoint.interpolated(known, np.log(hours), float(np.log(budget)))
    used = list(point.cells)
    failed = bool(((cells.failed > 0) & ~cells.complete)[used].any())
    series, rows = cells.paired_rows(used)
    if not failed:
        mean[series], *interval = inference.estimate_point(point, series)
        defined[series] = ~np.isnan(cells.values[rows]).any(axis=0)
        if cells.complete[used].all():
            low[series], high[series] = interval
    return ArmAtBudget(
        levels=known, hours=hours, point=point, failed=failed, mean=mean, low=low, high=high, defined=defined
    )


def _against_best(inference: Inference, columns: Sequence[Sequence[ArmAtBudget]]) -> list[list[ToBest]]:
    """Compare the arms of each budget with its best one; p is adjusted by Holm over all pairs and budgets.

    Nothing is compared while the study lacks replicates.
    """
    cells = inference.cells
    compared = [
        [number for number, arm in enumerate(arms) if arm.point is not None and not arm.failed]
        for arms in columns
    ]  # fmt: skip
    if cells.pending.any():
        compared = [[] for _ in columns]
    pairs = [(column, *pair) for column, numbers in enumerate(compared) for pair in combinations(numbers, 2)]
    p = np.full((len(pairs), len(cells.series)), np.nan)
    for index, (column, first, second) in enumerate(pairs):
        p[index] = _pair_p(inference, columns[column][first], columns[column][second])
    adjusted = holm(p)
    pair_index = {pair: index for index, pair in enumerate(pairs)}
    to_best = []
    for column, arms in enumerate(columns):
        best = _best(inference, arms, compared[column])
        to_best.append([_to_best(arms, number, best, column, adjusted, pair_index) for number in range(len(arms))])
    return to_best


def _pair_p(inference: Inference, first: ArmAtBudget, second: ArmAtBudget) -> FloatArray:
    """Return p of two arms at a budget, (series,); NaN for metrics without a direction."""
    cells, p = inference.cells, np.full(len(inference.cells.series), np.nan)
    if first.point is not None and second.point is not None:
        series, _ = cells.paired_rows([*first.point.cells, *second.point.cells])
        series = series[cells.directions[series] != 0]
        p[series] = inference.compare_points(first.point, second.point, series).p
    return p


def _best(inference: Inference, arms: Sequence[ArmAtBudget], compared: Sequence[int]) -> "NDArray[np.int64]":
    """Return the number of the arm with the best mean, (series,); -1 with fewer than two comparable arms."""
    cells = inference.cells
    if len(compared) < 2:
        return np.full(len(cells.series), -1, dtype=np.int64)
    signed = np.stack([arms[number].mean for number in compared]) * cells.directions
    defined = np.stack([arms[number].defined for number in compared])
    # An arm that is undefined where others are defined has a mean over different images.
    comparable = (defined == defined.any(axis=0)).all(axis=2) & ~np.isnan(signed) & (cells.directions != 0)
    top = np.asarray(compared)[np.where(comparable, signed, -np.inf).argmax(axis=0)]
    return np.where(comparable.sum(axis=0) > 1, top, -1)


def _to_best(
    arms: Sequence[ArmAtBudget],
    number: int,
    best: "NDArray[np.int64]",
    column: int,
    adjusted: FloatArray,
    pair_index: "dict[tuple[int, int, int], int]",
) -> ToBest:
    p = np.full(len(best), np.nan)
    for top in np.unique(best).tolist():
        index = pair_index.get((column, min(number, top), max(number, top)))
        if index is not None:
            p = np.where(best == top, adjusted[index], p)
    means = np.stack([arm.mean for arm in arms])
    difference = means[number] - means[best, np.arange(len(best))]
    return ToBest(best=best == number, difference=np.where(np.isnan(p), np.nan, difference), p=p)


def _rows(inference: Inference, first_cell: int, arm: ArmAtBudget, to_best: ToBest, budget: float) -> "pd.DataFrame":
    """Return a row for each series of an arm at a budget."""
    cells = inference.cells
    measured, provisional = arm.point is not None, bool(cells.pending.any())
    series, _ = cells.paired_rows(arm.point.cells if arm.point is not None else [first_cell])
    claim, unit = _claim(inference, arm.point)
    fraction, images = (_labelled(inference, arm, name, budget) for name in schema.SIZES)
    notes = {
        NOT_MEASURED: not measured,
        f"{REPLICATES_FAILED}: {NOT_COMPARED}": arm.failed,
        PROVISIONAL: provisional,
    }
    return cells.series.iloc[series].reset_index(drop=True).assign(
        **{name: cells.cells[name].iloc[first_cell] for name in cells.factors},
        labelled_fraction=fraction,
        labelled_images=images,
        hours=budget,
        hours_min=arm.hours[0] if len(arm.hours) else None,
        hours_max=arm.hours[-1] if len(arm.hours) else None,
        measured=measured,
        mean=arm.mean[series],
        ci_low=arm.low[series],
        ci_high=arm.high[series],
        best=to_best.best[series],
        difference_to_best=to_best.difference[series],
        p_to_best=to_best.p[series],
        unit=unit,
        generalises_to=claim,
        direction=cells.directions[series],
        metric_unit=[cells.design.metric_unit(metric) for metric in cells.metrics[series]],
        provisional=provisional,
        note="; ".join(note for note, applies in notes.items() if applies),
    )  # fmt: skip


def _labelled(inference: Inference, arm: ArmAtBudget, name: str, budget: float) -> float | int | None:
    """Return the labelled data of an arm at a budget, which grow linearly with the hours; None if not measured."""
    if arm.point is None:
        return None
    column = inference.cells.cells[name].to_numpy(np.float64)
    value = float(np.interp(budget, arm.hours, column[list(arm.levels)]))
    return round(value) if name == "labelled_images" else value


def _claim(inference: Inference, point: CurvePoint | None) -> tuple[str, str]:
    """Return the narrowest claim of the cells of a point, and the unit that varied."""
    claims = [inference.claim(cell) for cell in (point.cells if point is not None else ())]
    if not claims or ("", "") in claims:
        return "", ""
    return next((claim for claim in claims if claim[0].startswith(ONE_RUN)), claims[0])
