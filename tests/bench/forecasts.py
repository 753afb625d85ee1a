"""How often 90 % intervals of forecasts of learning curves cover the held-out score, and how wide they are.

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
    simulated = [list(simulated_curves(shape, SIMULATED // (10 if quick else 1))) for shape in SHAPES]
    segmented = [list(segmentation_curves(name, SEGMENTED // (10 if quick else 1))) for name in SEGMENTATION]
    classified = sorted(classifier_curves(quick=quick), key=_data_set)
    groups = [*simulated, *segmented, *(list(curves) for _, curves in groupby(classified, key=_data_set))]
    covered: list[list[Covered]] = []
    for curves in groups:
        covered.append([curve.covered() for curve in curves])
        yield from _figures(_kind(curves), curves, covered[-1])
    yield from _goals("simulated curves", [curve for group in covered[: len(simulated)] for curve in group])
    yield from _goals("real learners", [curve for group in covered[len(simulated) :] for curve in group])
    yield from _goals("all curves", [curve for group in covered for curve in group])


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
