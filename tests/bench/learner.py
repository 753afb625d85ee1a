"""A learner that is cheap and real: ridge regression on random features of generated images.

Folds truly share training images, seeds draw the random features, images of a patient resemble each other, and every
arm sees features of its own that are worth the same: no arm is better than another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PIXELS, FEATURES, HIDDEN = 24, 4, 12
PENALTY = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """`truth` (images, pixels) in -1 and 1, `seen` (arms, images, pixels, features), `patients` (images,)."""

    truth: Array
    seen: Array
    patients: NDArray[np.int64]


def draw(random: np.random.Generator, *, arms: int, images: int, a_patient: int = 2) -> Images:
    """Draw images, `a_patient` of each patient."""
    patients = np.arange(images) // a_patient
    hardness = random.normal(0, 0.5, patients[-1] + 1)[patients] + random.normal(0, 0.3, images)
    truth = np.where(random.random((images, PIXELS)) < 0.4, 1.0, -1.0)
    signal = (0.7 * np.exp(hardness))[None, :, None, None] * truth[None, :, :, None]
    # What disturbs an image disturbs all of its pixels, in each arm's features differently.
    shift = random.normal(0, 0.7, (arms, images, 1, FEATURES))
    return Images(
        truth=truth, seen=signal + shift + random.normal(0, 1.5, (arms, images, PIXELS, FEATURES)), patients=patients
    )


def dice(training: Images, tested: Sequence[Images], arm: int, random: np.random.Generator) -> list[Array]:
    """Train one arm and return the Dice coefficient of each image of each part that is tested."""
    weights = random.normal(0, 1, (FEATURES + 1, HIDDEN))
    basis = _basis(training.seen[arm], weights)
    gram = basis.T @ basis + PENALTY * np.eye(HIDDEN)
    solution = np.linalg.solve(gram, basis.T @ training.truth.ravel())
    return [_dice(_basis(part.seen[arm], weights) @ solution > 0, part.truth > 0) for part in tested]


def _dice(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> Array:
    predicted = predicted.reshape(true.shape)
    both = predicted.sum(axis=1) + true.sum(axis=1)
    return np.where(both > 0, 2 * (predicted & true).sum(axis=1) / np.maximum(both, 1), 1.0)


def subset(images: Images, rows: NDArray[np.int64]) -> Images:
    """Return some of the images."""
    return Images(truth=images.truth[rows], seen=images.seen[:, rows], patients=images.patients[rows])


def _basis(seen: Array, weights: Array) -> Array:
    flat = seen.reshape(-1, FEATURES)
    return np.tanh(0.5 * (flat @ weights[:-1] + weights[-1]))
