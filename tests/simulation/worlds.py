"""Data worlds and a learner that is cheap and real: ridge regression on pixels, from a random start.

All arrays are batched over independent worlds. Axes, in this order: worlds W, arms A, places P (one labelled amount,
seed and fold of a plan), images N, pixels M, features F, of which the last is constant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How images are drawn and learned.

    Truth is -1 or 1 at each pixel. What an arm sees of it is the truth times the image's strength (`signal`, times
    exp of its patient's and its own `hardness`, the same for all arms) along a direction that differs by patient
    (`turn`), plus a shift of all pixels (`patient_shift`, `image_shift`) and pixel noise, in each arm's own features.

    Ridge regression pulls the weights towards a start, which is good along the common direction (`start`) and random
    otherwise (`start_noise`, new for each replicate): few training images leave more of the start. `penalties` stand
    for epochs, the last one first: validation images choose among them.
    """

    pixels: int = 32
    features: int = 16
    foreground: float = 0.4
    signal: float = 1.0
    patient_hardness: float = 0.15
    image_hardness: float = 0.1
    turn: float = 0.3
    patient_shift: float = 0.4
    image_shift: float = 0.3
    noise: float = 1.0
    start: float = 0.0
    start_noise: float = 0.3
    penalties: tuple[float, ...] = (15.0, 60.0)


BALANCED = Learner()
"""At all labels most of the variance between replicates is due to who tests, at few labels to who trains."""
TRAINING = Learner(
    turn=0.5, patient_hardness=0.1, image_hardness=0.05, patient_shift=0.6, image_shift=0.2, signal=1.2,
    penalties=(30.0, 120.0),
)  # fmt: skip
"""Who trains matters also at all labels."""
STEADY = Learner(
    turn=0.15, patient_hardness=0.05, image_hardness=0.05, patient_shift=0.15, image_shift=0.1, signal=1.0
)  # fmt: skip
"""Folds differ so little that a pretraining run can differ by 7 times as much."""
INFLUENTIAL = Learner(
    turn=0.8, patient_hardness=0.05, image_hardness=0.05, patient_shift=0.2, image_shift=0.1, signal=1.5,
    penalties=(5.0, 15.0),
)  # fmt: skip
"""A patient matters about as much by training as by being tested: the hardest case for tests over replicates."""
FLAT = Learner(start=3.0, penalties=(1e6,))
"""What is learned from a good start changes nothing: the curve over labels is flat."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """`truth` (W, N, M); `signal` (W, A, N, F) times the truth, plus `rest` (W, A, N, M, F), is what arms see."""

    truth: Array
    signal: Array
    rest: Array


def draw_images(random: np.random.Generator, learner: Learner, *, worlds: int, arms: int, patients: Whole) -> Images:
    """Draw images of patients that are exchangeable: `patients` (N,) numbers those of the images."""
    images, features, count = len(patients), learner.features, int(patients.max()) + 1
    hardness = learner.patient_hardness * random.standard_normal((worlds, count))[:, patients]
    hardness += learner.image_hardness * random.standard_normal((worlds, images))
    truth = np.where(random.random((worlds, images, learner.pixels)) < learner.foreground, 1.0, -1.0)
    truth[..., 0] = 1.0  # metrics are undefined without any foreground
    shape = (worlds, arms, count, features)
    direction = _common(features) + learner.turn * random.standard_normal(shape)
    signal = np.zeros((worlds, arms, images, features + 1), dtype=np.float32)
    signal[..., :-1] = learner.signal * np.exp(hardness)[:, None, :, None] * direction[:, :, patients]
    shift = learner.patient_shift * random.standard_normal(shape)[:, :, patients]
    shift += learner.image_shift * random.standard_normal((worlds, arms, images, features))
    rest = random.standard_normal((worlds, arms, images, learner.pixels, features + 1), dtype=np.float32)
    rest *= learner.noise
    rest[..., :-1] += shift[:, :, :, None].astype(np.float32)
    rest[..., -1] = 1.0
    return Images(truth=truth.astype(np.float32), signal=signal, rest=rest)


def draw_starts(random: np.random.Generator, learner: Learner, shape: tuple[int, ...]) -> Array:
    """Return starting weights (*shape, F)."""
    good = learner.start * np.append(_common(learner.features), 0.0)
    return good + learner.start_noise * random.standard_normal((*shape, learner.features + 1))


def train(images: Images, learner: Learner, *, training: Flags, validation: Flags, boost: Array, start: Array) -> Array:
    """Return weights (W, A, P, F).

    `training` and `validation` (A, P, N) say who trains and validates, `boost` (W, A, P) multiplies the signal that an
    arm's features carry in a replicate, `start` (W, A, P, F) are starting weights.
    """
    moments = _moments(images)
    squares, cross = _sums(moments, training, boost)
    seen, aim = _sums(moments, validation, boost)
    unit = np.eye(squares.shape[-1])
    candidates = np.stack([
        np.linalg.solve(squares + penalty * unit, (cross + penalty * start)[..., None])[..., 0]
        for penalty in learner.penalties
    ])  # fmt: skip
    error = ((seen @ candidates[..., None])[..., 0] * candidates).sum(axis=-1) - 2 * (aim * candidates).sum(axis=-1)
    # Without validation images all errors are 0 and the first, the last epoch, is taken.
    best = error.argmin(axis=0)
    return np.asarray(np.take_along_axis(candidates, best[None, ..., None], axis=0)[0])


def score(images: Images, weights: Array, *, tested: Flags, boost: Array) -> Whole:
    """Return tp, fp, fn, tn of each image under each replicate, (W, A, P, N, 4); 0 where `tested` (P, N) is False."""
    worlds, arms, places, _ = weights.shape
    pixels = np.zeros((worlds, arms, places, tested.shape[1], 4), dtype=np.int64)
    for rows in np.unique(tested, axis=0):
        same = np.flatnonzero((tested == rows).all(axis=1))
        part = _select(images, rows)
        found = _predicted(part, weights[:, :, same], boost[:, :, same])
        pixels[:, :, same[:, None], np.flatnonzero(rows)] = _counted(found, part.truth > 0)
    return pixels


def _predicted(images: Images, weights: Array, boost: Array) -> Flags:
    """Return the predicted foreground, (W, A, P, N, M)."""
    worlds, arms, count, pixels, features = images.rest.shape
    weights, boost = weights.astype(np.float32), boost.astype(np.float32)
    rest = weights @ images.rest.reshape(worlds, arms, count * pixels, features).swapaxes(-1, -2)
    rest = rest.reshape(worlds, arms, -1, count, pixels)
    strength = (weights @ images.signal.swapaxes(-1, -2)) * boost[..., None]
    return np.asarray(rest + strength[..., None] * images.truth[:, None, None] > 0)


def _counted(predicted: Flags, truth: Flags) -> Whole:
    truth = truth[:, None, None]
    both, called, true = (predicted & truth).sum(axis=-1), predicted.sum(axis=-1), truth.sum(axis=-1)
    true = np.broadcast_to(true, both.shape)
    return np.stack([both, called - both, true - both, predicted.shape[-1] - called - true + both], axis=-1)


def _moments(images: Images) -> tuple[Array, ...]:
    """Return sums over the pixels of each image, of features times features (W, A, N, F, F) and times truth.

    Of features times features three, to be multiplied by the square of the boost, by the boost and by 1, of features
    times truth two, by the boost and by 1.
    """
    pixels, signal = images.truth.shape[-1], images.signal
    by_truth = (images.truth[:, None, :, None] @ images.rest)[..., 0, :]
    mixed = signal[..., :, None] * by_truth[..., None, :]
    return (
        pixels * signal[..., :, None] * signal[..., None, :],
        mixed + mixed.swapaxes(-1, -2),
        images.rest.swapaxes(-1, -2) @ images.rest,
        pixels * signal,
        by_truth,
    )


def _sums(moments: tuple[Array, ...], members: Flags, boost: Array) -> tuple[Array, Array]:
    """Return the sums over the images of each place, (W, A, P, F, F) and (W, A, P, F)."""
    twice, once, none, truth_once, truth_none = (_over(members, values) for values in moments)
    factor = boost[..., None]
    squares = factor[..., None] ** 2 * twice + factor[..., None] * once + none
    return squares, factor * truth_once + truth_none


def _over(members: Flags, values: Array) -> Array:
    """Sum values (W, A, N, ...) over the members (A, P, N) of each place."""
    worlds, arms, images, *rest = values.shape
    summed = members.astype(values.dtype) @ values.reshape(worlds, arms, images, -1)
    return np.asarray(summed.reshape(worlds, arms, -1, *rest), dtype=np.float64)


def _select(images: Images, rows: Flags) -> Images:
    return Images(truth=images.truth[:, rows], signal=images.signal[:, :, rows], rest=images.rest[:, :, rows])


def _common(features: int) -> Array:
    return np.full(features, features**-0.5)
