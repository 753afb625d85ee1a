"""Families of learning curves as Gaussian models: linear in two coefficients, on a grid of the other parameters.

Scores are directed and scaled so that higher is better and 1 is the upper bound.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray

FAMILIES: Final = ("power_law", "exponential", "gaussian_process")
EXPONENTS = tuple(np.geomspace(0.1, 2.0, 16).tolist())
"""Exponents c of the power law a - b (n + shift)^-c."""
SHIFTS = (0.0, 0.5, 2.0)
"""In multiples of the smallest number of images."""
DECAYS = tuple(np.geomspace(0.02, 3.0, 24).tolist())
"""Decay constants k of the exponential plateau a - b exp(-n / k), in multiples of the largest measured number."""
DISCREPANCIES, DISCREPANCY_LENGTH = (0.004, 0.02), 1.5
"""Standard deviation of the deviation of a curve from these two families, and its length scale in log(n).

The smaller one also covers the values between those of the grids.
"""
AMPLITUDES, LENGTHS = (0.005, 0.01, 0.02, 0.04, 0.08), (0.7, 1.5, 3.0)
"""Standard deviation of the Gaussian process around a line in log(n), and its length scale in log(n)."""
PLATEAU, RANGE = (0.75, 0.35), 0.4
"""Mean and standard deviation of the plateau a; standard deviation of b, the distance to it at the smallest number."""
LEVEL, SLOPE = (0.6, 0.4), (0.03, 0.08)
"""Mean and standard deviation of the level at the largest measured number, and of the gain per unit of log(n)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CurveModels:
    """All families, each at all values of its other parameters: the first axis of every array.

    Args:
        family: (models,), index in `FAMILIES`.
        design: (models, points, 2), the effect of the two coefficients at each number of images.
        mean, sd: (models, 2), normal prior of the coefficients.
        smallest: (models,), lower bound of the second coefficient: 0 for the distance to a plateau, none for a slope.
        covariance: (models, points, points), of the deviation of the curve from the linear part.
        prior: (models,), prior probability; families have equal ones.
    """

    family: NDArray[np.int64]
    design: FloatArray
    mean: FloatArray
    sd: FloatArray
    smallest: FloatArray
    covariance: FloatArray
    prior: FloatArray

    @classmethod
    def at(cls, images: FloatArray, measured: int) -> Self:
        """Return the models of curves at increasing numbers of images, of which the first ones are `measured`."""
        logs = np.log(images / images[measured - 1])
        bases = [*_power_laws(images), *_exponentials(images, measured)]
        saturating = [
            (family, np.stack([np.ones_like(basis), -basis], axis=1), deviation)
            for family, basis in bases
            for deviation in _kernels(logs, DISCREPANCIES, (DISCREPANCY_LENGTH,))
        ]
        kernels = list(_kernels(logs, AMPLITUDES, LENGTHS))
        line = np.stack([np.ones_like(logs), logs], axis=1)
        family = np.array([name for name, *_ in saturating] + [2] * len(kernels), dtype=np.int64)
        return cls(
            family=family,
            design=np.stack([design for _, design, _ in saturating] + [line] * len(kernels)),
            mean=np.array([(PLATEAU[0], 0.0)] * len(saturating) + [(LEVEL[0], SLOPE[0])] * len(kernels)),
            sd=np.array([(PLATEAU[1], RANGE)] * len(saturating) + [(LEVEL[1], SLOPE[1])] * len(kernels)),
            smallest=np.array([0.0] * len(saturating) + [-np.inf] * len(kernels)),
            covariance=np.stack([deviation for *_, deviation in saturating] + kernels),
            prior=1 / (len(FAMILIES) * np.bincount(family)[family]),
        )


def _power_laws(images: FloatArray) -> Iterator[tuple[int, FloatArray]]:
    for exponent, shift in product(EXPONENTS, SHIFTS):
        first = images[0] * (1 + shift)
        yield 0, ((images + shift * images[0]) / first) ** -exponent


def _exponentials(images: FloatArray, measured: int) -> Iterator[tuple[int, FloatArray]]:
    for decay in DECAYS:
        yield 1, np.exp(-(images - images[0]) / (decay * images[measured - 1]))


def _kernels(logs: FloatArray, amplitudes: Iterable[float], lengths: Iterable[float]) -> Iterator[FloatArray]:
    """Yield Matern 3/2 covariances."""
    gaps = np.sqrt(3) * np.abs(logs[:, None] - logs)
    for amplitude, length in product(amplitudes, lengths):
        scaled = gaps / length
        yield amplitude**2 * (1 + scaled) * np.exp(-scaled)
