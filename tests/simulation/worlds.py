"""Simulated images and a fast learner: ridge regression on pixels from random starting weights.

A world is one draw of the data of a study. All arrays are batched over independent worlds. The axes, in
this order, are worlds W, arms A, positions P (labelled amount, seed and fold of a replicate), images N, pixels M and
features F, of which the last is constant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How images are drawn and learned.

    The truth is -1 or 1 at each pixel. The features of an arm are the truth times the strength of the image (`signal`
    times exp of the hardness of its patient and of the image, equal for all arms) along a direction that differs by
    patient (`turn`), plus a shift of all pixels (`patient_shift`, `image_shift`) and pixel noise. Directions, shifts
    and noise are drawn separately for each arm.

    Ridge regression shrinks the weights towards starting weights, which are informative along the common direction
    (`start`) and otherwise random (`start_noise`, drawn for each replicate): with few training images, the starting
    weights have more influence. `penalties` represent epochs, the last epoch first; validation images select one.
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
"""Most variance between replicates is due to the test patients with all labels, to the training patients with few."""
TRAINING = Learner(
    turn=0.5, patient_hardness=0.1, image_hardness=0.05, patient_shift=0.6, image_shift=0.2, signal=1.2,
    penalties=(30.0, 120.0),
)  # fmt: skip
"""The training patients cause much variance with all labels too."""
STEADY = Learner(
    turn=0.15, patient_hardness=0.05, image_hardness=0.05, patient_shift=0.15, image_shift=0.1, signal=1.0
)  # fmt: skip
"""Folds differ little, so that pretraining runs can differ by 7 times as much."""
INFLUENTIAL = Learner(
    turn=0.8, patient_hardness=0.05, image_hardness=0.05, patient_shift=0.2, image_shift=0.1, signal=1.5,
    penalties=(5.0, 15.0),
)  # fmt: skip
"""Training and test patients cause about equal variance: the hardest case for tests over replicates."""
STEEP = Learner(
    turn=0.15, patient_hardness=0.05, image_hardness=0.05, patient_shift=0.15, image_shift=0.1, start_noise=1.0,
    penalties=(60.0,),
)  # fmt: skip
"""Folds differ little, and with few training images random starting weights matter much: the curve is steep."""
FLAT = Learner(start=3.0, penalties=(1e6,))
"""Training does not improve on good starting weights: the learning curve is flat."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images: the features of arms are `signal` (W, A, N, F) times `truth` (W, N, M), plus `offset` (W, A, N, M, F)."""

    truth: Array
    signal: Array
    offset: Array


def draw_images(random: np.random.Generator, learner: Learner, *, worlds: int, arms: int, patients: Integers) -> Images:
    """Draw images of exchangeable patients; `patients` (N,) is the number of each image's patient."""
    images, features, count = len(patients), learner.features, int(patients.max()) + 1
    hardness = learner.patient_hardness * random.standard_normal((worlds, count))[:, patients]
    hardness += learner.image_hardness * random.standard_normal((worlds, images))
    truth = np.where(random.random((worlds, images, learner.pixels)) < learner.foreground, 1.0, -1.0)
    truth[..., 0] = 1.0  # metrics are undefined without any foreground
    shape = (worlds, arms, count, features)
    direction = _common_direction(features) + learner.turn * random.standard_normal(shape)
    signal = np.zeros((worlds, arms, images, features + 1), dtype=np.float32)
    signal[..., :-1] = learner.signal * np.exp(hardness)[:, None, :, None] * direction[:, :, patients]
    shift = learner.patient_shift * random.standard_normal(shape)[:, :, patients]
    shift += learner.image_shift * random.standard_normal((worlds, arms, images, features))
    offset = random.standard_normal((worlds, arms, images, learner.pixels, features + 1), dtype=np.float32)
    offset *= learner.noise
    offset[..., :-1] += shift[:, :, :, None].astype(np.float32)
    offset[..., -1] = 1.0
    return Images(truth=truth.astype(np.float32), signal=signal, offset=offset)


def draw_starts(random: np.random.Generator, learner: Learner, shape: tuple[int, ...]) -> Array:
    """Return starting weights (*shape, F)."""
    informative = learner.start * np.append(_common_direction(learner.features), 0.0)
    return informative + learner.start_noise * random.standard_normal((*shape, learner.features + 1))


def train(images: Images, learner: Learner, *, training: Flags, validation: Flags, boost: Array, start: Array) -> Array:
    """Return weights (W, A, P, F).

    `training` and `validation` (A, P, N) select images, `boost` (W, A, P) multiplies the signal in the features of an
    arm in a replicate, `start` (W, A, P, F) are starting weights.
    """
    moments = _moments(images)
    squares, cross = _sums(moments, training, boost)
    validation_squares, validation_cross = _sums(moments, validation, boost)
    identity = np.eye(squares.shape[-1])
    candidates = np.stack([
        np.linalg.solve(squares + penalty * identity, (cross + penalty * start)[..., None])[..., 0]
        for penalty in learner.penalties
    ])  # fmt: skip
    error = ((validation_squares @ candidates[..., None])[..., 0] * candidates).sum(axis=-1) - 2 * (
        validation_cross * candidates
    ).sum(axis=-1)
    # Without validation images all errors are 0, and the first candidate, the last epoch, is selected.
    best = error.argmin(axis=0)
    return np.asarray(np.take_along_axis(candidates, best[None, ..., None], axis=0)[0])


def score(images: Images, weights: Array, *, tested: Flags, boost: Array) -> Integers:
    """Return tp, fp, fn, tn of each image under each replicate, (W, A, P, N, 4); 0 where `tested` (P, N) is False."""
    worlds, arms, positions, _ = weights.shape
    pixels = np.zeros((worlds, arms, positions, tested.shape[1], 4), dtype=np.int64)
    for rows in np.unique(tested, axis=0):
        matching = np.flatnonzero((tested == rows).all(axis=1))
        selected = _select(images, rows)
        predicted = _predict(selected, weights[:, :, matching], boost[:, :, matching])
        pixels[:, :, matching[:, None], np.flatnonzero(rows)] = _count_pixels(predicted, selected.truth > 0)
    return pixels


def _predict(images: Images, weights: Array, boost: Array) -> Flags:
    """Return the predicted foreground, (W, A, P, N, M)."""
    worlds, arms, count, pixels, features = images.offset.shape
    weights, boost = weights.astype(np.float32), boost.astype(np.float32)
    offset = weights @ images.offset.reshape(worlds, arms, count * pixels, features).swapaxes(-1, -2)
    offset = offset.reshape(worlds, arms, -1, count, pixels)
    strength = (weights @ images.signal.swapaxes(-1, -2)) * boost[..., None]
    return np.asarray(offset + strength[..., None] * images.truth[:, None, None] > 0)


def _count_pixels(predicted: Flags, truth: Flags) -> Integers:
    truth = truth[:, None, None]
    tp, positives, foreground = (predicted & truth).sum(axis=-1), predicted.sum(axis=-1), truth.sum(axis=-1)
    foreground = np.broadcast_to(foreground, tp.shape)
    return np.stack([tp, positives - tp, foreground - tp, predicted.shape[-1] - positives - foreground + tp], axis=-1)


def _moments(images: Images) -> tuple[Array, ...]:
    """Return sums over the pixels of each image of features times features (W, A, N, F, F) and features times truth.

    The first three sums are the coefficients of the squared boost, the boost and 1 in features times features; the last
    two are those of the boost and 1 in features times truth.
    """
    pixels, signal = images.truth.shape[-1], images.signal
    by_truth = (images.truth[:, None, :, None] @ images.offset)[..., 0, :]
    cross = signal[..., :, None] * by_truth[..., None, :]
    return (
        pixels * signal[..., :, None] * signal[..., None, :],
        cross + cross.swapaxes(-1, -2),
        images.offset.swapaxes(-1, -2) @ images.offset,
        pixels * signal,
        by_truth,
    )


def _sums(moments: tuple[Array, ...], members: Flags, boost: Array) -> tuple[Array, Array]:
    """Return the sums over the images of each position, (W, A, P, F, F) and (W, A, P, F)."""
    quadratic, linear, constant, truth_linear, truth_constant = (_sum_over(members, values) for values in moments)
    factor = boost[..., None]
    squares = factor[..., None] ** 2 * quadratic + factor[..., None] * linear + constant
    return squares, factor * truth_linear + truth_constant


def _sum_over(members: Flags, values: Array) -> Array:
    """Sum values (W, A, N, ...) over the members (A, P, N) of each position."""
    worlds, arms, images, *trailing = values.shape
    summed = members.astype(values.dtype) @ values.reshape(worlds, arms, images, -1)
    return np.asarray(summed.reshape(worlds, arms, -1, *trailing), dtype=np.float64)


def _select(images: Images, rows: Flags) -> Images:
    return Images(truth=images.truth[:, rows], signal=images.signal[:, :, rows], offset=images.offset[:, :, rows])


def _common_direction(features: int) -> Array:
    return np.full(features, features**-0.5)
