"""Forecasts of the arms of a study."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from results import schema
from results.statistics.compare import compare
from results.statistics.design import Design, PlannedCell
from results.statistics.forecast.mixture import Bounds, forecast
from tests.support.compared import SIZES, design, key, results

FRACTIONS = (0.25, 1 / 3, 0.5, 1.0)
IMAGES = np.array([8.0, 11, 16, 32])


def value(pathway: str, fraction: float, fold: int, seed: int) -> float:
    random = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed])
    return float(0.8 - 0.2 * fraction**-0.5 + 0.02 * (pathway == "encode") + random.normal(0, 0.01))


def rows(
    fractions: Sequence[float] = FRACTIONS, *, of: Design | None = None, missing: bool = False, seeds: int = 2,
    folds: int = 5, metrics: Sequence[str] = ("mean_iou",), undefined: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the forecasts; with `missing` a replicate of `encode` has no results, `undefined` ones have no value."""

    def scored(pathway: str, fraction: float, fold: int, seed: int) -> float | None:
        return None if undefined and (pathway, fold) == ("encode", 4) else value(pathway, fraction, fold, seed)

    table = results(scored, fractions=fractions, seeds=seeds, folds=folds, metrics=metrics)
    gone = [
        missing and row["pathway"] == "encode" and (row["fold"], row["seed"]) == (4, 1) for row in table.to_pylist()
    ]
    forecasts = compare(
        table.filter([not is_gone for is_gone in gone]), of or design(seeds=seeds, folds=folds)
    ).forecasts
    assert forecasts.schema == schema.forecasts()
    return forecasts.to_pylist()


def test_every_arm_is_forecast_at_twice_and_four_times_its_largest_number_of_masks() -> None:
    forecasts = rows()
    assert [(row["pathway"], row["multiple"], row["labelled_images"]) for row in forecasts] == [
        ("none", 2, 64), ("none", 4, 128), ("encode", 2, 64), ("encode", 4, 128)
    ]  # fmt: skip
    assert {(row["amounts"], row["n"], row["note"]) for row in forecasts} == {(4, 10, "")}
    values = np.array([[value("encode", f, k, s) for k in range(5) for s in range(2)] for f in FRACTIONS])
    expected = forecast(values, IMAGES, np.array([64.0, 128]), Bounds(0, 1))
    assert [row["mean"] for row in forecasts[2:]] == pytest.approx(list(expected.mean))
    assert [row["pi_low"] for row in forecasts[2:]] == pytest.approx(list(expected.low))
    assert [row["pi_high"] for row in forecasts[2:]] == pytest.approx(list(expected.high))


def test_fewer_than_four_amounts_have_no_forecast_with_the_reason() -> None:
    forecasts = rows((0.25, 0.5, 1.0))
    assert {row["note"] for row in forecasts} == {"no forecast: fewer than 4 amounts of labels"}
    assert {row["mean"] for row in forecasts} == {None}


def test_an_arm_with_missing_replicates_has_no_forecast() -> None:
    notes = {row["pathway"]: row["note"] for row in rows(missing=True)}
    assert notes == {"none": "", "encode": "no forecast: provisional: replicates are missing"}


def test_an_arm_with_a_failed_replicate_has_no_forecast() -> None:
    cells = [
        PlannedCell(arm=key(pathway), level=f, labelled_fraction=f, labelled_images=SIZES[f],
                    failed=int(pathway == "encode"))
        for pathway in ("none", "encode") for f in FRACTIONS
    ]  # fmt: skip
    forecasts = rows(missing=True, of=Design(folds=5, seeds=2, cells=cells))
    assert {row["pathway"]: row["note"] for row in forecasts}["encode"] == "no forecast: replicates failed"


def test_a_single_replicate_has_no_forecast() -> None:
    assert {row["note"] for row in rows(folds=1, seeds=1)} == {"no forecast: fewer than 2 replicates"}


def test_undefined_values_have_no_forecast() -> None:
    notes = {row["pathway"]: row["note"] for row in rows(undefined=True)}
    assert notes["encode"] == "no forecast: undefined in some replicates"


def test_only_mean_iou_and_dice_are_forecast() -> None:
    assert {row["metric"] for row in rows(metrics=("mean_iou", "dice", "recall", "ece"))} == {"mean_iou", "dice"}
