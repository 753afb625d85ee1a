"""A bootstrap over patients: how far a mean over images moves with the patients that were there."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from results.inference import Array

DRAWS = 2000
FEWEST = 10
"""With fewer patients the percentiles of their draws cover far less than they say."""


def patient_interval(values: Array, patients: NDArray[np.int64], confidence: float = 0.95) -> tuple[Array, Array]:
    """Return the percentile interval of each column's mean over images, all images of a patient drawn together.

    `values` (images, columns) with NaN where undefined, `patients` (images,) numbers them from 0. NaN below
    `FEWEST` patients with a value. Equal numbers of patients are drawn alike, so arms can be compared.
    """
    there = ~np.isnan(values)
    people = int(patients.max(initial=-1)) + 1
    sums, counts = (np.zeros((people, values.shape[1])) for _ in range(2))
    np.add.at(sums, patients, np.where(there, values, 0.0))
    np.add.at(counts, patients, there)
    enough = (counts > 0).sum(axis=0) >= FEWEST
    ends = np.full((2, values.shape[1]), np.nan)
    if enough.any():
        weights = _draws(people)
        shown = weights @ counts[:, enough]
        # A draw without any patient that has the class says nothing of it.
        means = np.where(shown > 0, weights @ sums[:, enough] / np.maximum(shown, 1), np.nan)
        tail = (1 - confidence) / 2
        ends[:, enough] = _quantiles(means, (tail, 1 - tail))
    return ends[0], ends[1]


def patients_with_values(values: Array, patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many patients have a value, by column."""
    there = np.zeros((int(patients.max(initial=-1)) + 1, values.shape[1]), dtype=bool)
    np.logical_or.at(there, patients, ~np.isnan(values))
    return np.asarray(there.sum(axis=0))


@lru_cache(maxsize=4)
def _draws(people: int) -> Array:
    """Return how often each patient is in each draw, (draws, people)."""
    random = np.random.default_rng(people)
    return random.multinomial(people, np.full(people, 1 / people), size=DRAWS).astype(np.float64)


def _quantiles(means: Array, ends: tuple[float, float]) -> Array:
    whole = ~np.isnan(means).any(axis=0)
    found = np.empty((2, means.shape[1]))
    found[:, whole] = np.quantile(means[:, whole], ends, axis=0)
    found[:, ~whole] = np.nanquantile(means[:, ~whole], ends, axis=0)
    return found
