"""Coverage and width of 90 % intervals of forecasts of learning curves for the held-out score.

Simulated curves of seven shapes, of which three are families of the forecast, and measured curves of real learners.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from tests.bench.figure import Figure
from tests.simulation.learning_curves import (
    MULTIPLES,
    SEGMENTATION,
    SHAPES,
    LearningCurve,
    classifier_curves,
    segmentation_curves,
    simulated_curves,
)

SIMULATED, SEGMENTED = 60, 40
LOWEST, HIGHEST = 0.85, 0.95
Covered = list[bool]


def forecasts(*, quick: bool) -> Iterator[Figure]:
    """Measure the coverage by kind of curve, and over all curves."""
    by_learners: dict[str, list[Covered]] = {}
    for learners, curves in _groups(quick=quick):
        group = [curve.covered() for curve in curves]
        by_learners.setdefault(learners, []).extend(group)
        yield from _figures(_kind(curves), curves, group)
    for learners, covered in by_learners.items():
        yield from _goals(learners, covered)
    yield from _goals("all curves", [curve for covered in by_learners.values() for curve in covered])


def _groups(*, quick: bool) -> Iterator[tuple[str, list[LearningCurve]]]:
    """Yield curves of one kind, simulated ones first."""
    part = 10 if quick else 1
    for shape in SHAPES:
        yield "simulated curves", list(simulated_curves(shape, SIMULATED // part))
    for name in SEGMENTATION:
        yield "real learners", list(segmentation_curves(name, SEGMENTED // part))
    classified = sorted(classifier_curves(quick=quick), key=_data_set)
    for _, curves in groupby(classified, key=_data_set):
        yield "real learners", list(curves)


def _data_set(curve: LearningCurve) -> str:
    return curve.kind.partition(" on ")[2]


def _kind(curves: Sequence[LearningCurve]) -> str:
    data = _data_set(curves[0])
    return f"classifiers on {data}" if data else curves[0].kind


def _figures(kind: str, curves: Sequence[LearningCurve], covered: Sequence[Covered]) -> Iterator[Figure]:
    for number, multiple in enumerate(MULTIPLES):
        share = float(np.mean([curve[number] for curve in covered]))
        yield Figure(
            name=f"{kind}: interval covers at {multiple} x ({len(curves)} curves)", unit="share", values=[share]
        )


def _goals(kind: str, covered: Sequence[Covered]) -> Iterator[Figure]:
    for number, multiple in enumerate(MULTIPLES):
        share = float(np.mean([curve[number] for curve in covered]))
        name = f"{kind}: interval covers at {multiple} x ({len(covered)} curves)"
        yield Figure(name=name, unit="share", values=[share], goal=LOWEST, better="higher")
        yield Figure(name=f"{name}, at most", unit="share", values=[share], goal=HIGHEST)
