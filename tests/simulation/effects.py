"""Calibrates effects on the data by simulation, so that their effect on scores has a given size."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tests.simulation.designs import document
from tests.simulation.studies import Simulated, headline_values
from tests.simulation.worlds import Array, Learner

STUDIES = 200
GRID = np.linspace(-5.0, 4.0, 28)
ADVANTAGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)


def with_pretraining(simulated: Simulated, multiple: float) -> Simulated:
    """Return the study with pretraining runs that differ by `multiple` SDs of replicates; see `run_sd`."""
    images = simulated.document["data"]["hospital"]["images"]
    sd = run_sd(simulated.document["compare"]["folds"], images, simulated.learner, multiple)
    return replace(simulated, effects=replace(simulated.effects, run_sd=sd))


def run_sd(folds: int, images: int, learner: Learner, multiple: float) -> float:
    """Return the standard deviation of the log signal between pretraining runs for a given spread of their scores.

    `multiple` is that spread, in standard deviations of the replicates of one arm without effects of pretraining.
    """
    if not multiple:
        return 0.0
    fold_sd, response = _score_response(max(folds, 2), images, learner)
    sds = np.linspace(0.01, 4.0, 400)
    draws = np.random.default_rng(0).standard_normal(4000)
    score_sds = np.array([np.interp(sd * draws, GRID, response).std() for sd in sds])
    if score_sds.max() < multiple * fold_sd:
        raise ValueError(f"runs cannot differ by {multiple * fold_sd:.2f}: scores are within 0..1")
    return float(sds[np.argmax(score_sds >= multiple * fold_sd)])


@lru_cache
def _score_response(folds: int, images: int, learner: Learner) -> tuple[float, Array]:
    """Return the standard deviation of replicates, and the expected score at each log signal of `GRID`."""
    plain = Simulated(name="plain", document=document(folds=folds, images=images, arms=2), learner=learner)
    values = headline_values(plain, STUDIES)
    fold_sd = float(np.sqrt(values[:, :, -1].reshape(-1, folds).var(axis=1, ddof=1).mean()))
    return fold_sd, np.array([headline_values(plain, 20, boost=boost).mean() for boost in GRID])


def with_advantage(simulated: Simulated, arm: str, advantage: float) -> Simulated:
    """Return the study with a stronger signal in the features of one arm."""
    return replace(simulated, effects=replace(simulated.effects, advantage={arm: advantage}))


def advantages(simulated: Simulated, arm: str, ratios: Sequence[float], studies: int = STUDIES) -> Array:
    """Return the advantages at which the last arm differs from the first by `ratios` standard deviations.

    The standard deviation is that of the paired differences over replicates, as in the output of `study plan`.
    """
    effects = [standardised(headline_values(with_advantage(simulated, arm, value), studies)) for value in ADVANTAGES]
    return np.interp(ratios, effects, ADVANTAGES, right=np.nan)


def standardised(values: Array) -> float:
    """Return the mean difference of the last arm to the first in standard deviations over replicates."""
    differences = (values[:, -1, -1] - values[:, 0, -1]).reshape(len(values), -1)
    return float(differences.mean() / np.sqrt(differences.var(axis=1, ddof=1).mean()))


def true_difference(simulated: Simulated, studies: int) -> float:
    """Return the expected difference of the last arm to the first: the mean over many studies."""
    values = headline_values(simulated, studies, seed=1)
    return float((values[:, -1, -1] - values[:, 0, -1]).mean())
