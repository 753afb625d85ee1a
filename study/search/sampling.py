"""Propose the next candidate as a pure function of the existing trials, so that a killed search resumes exactly."""

import random
import warnings
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.config.search import Search
from study.search.space import Space, Values

ATTEMPTS = 20
"""Samples that match no arm or repeat a trial, before an arm is sampled uniformly (and may be a repetition)."""


def propose(
    search: Search, space: Space, name: str, trials: Sequence[FrozenTrial], points: Sequence[Values] = ()
) -> FrozenTrial | None:
    """Return the next trial of the search `name`, in state running; None if a grid is exhausted.

    `points` are tried first, each once; parameters that they do not set are sampled.

    Each trial gets a new sampler with its own seed. It samples in memory, so that a trial is written to the journal
    completely or not at all.
    """
    points_tried = sum("point" in trial.user_attrs for trial in trials)
    user_attrs = {"point": points_tried} if points_tried < len(points) else {}
    fixed = points[points_tried] if user_attrs else None
    if fixed is None and search.sampler == "grid":
        fixed = _grid_point(search, space, name, trials)
        if fixed is None:
            return None
    known_params = [trial.params for trial in trials]
    for attempt in range(ATTEMPTS):
        candidate = _sample(
            search, space, trials, seed_of(search.seed, name, len(trials), attempt), fixed or {}, user_attrs
        )
        if candidate is not None and (fixed or candidate.params not in known_params):
            return candidate
    generator = random.Random(seed_of(search.seed, name, len(trials), ATTEMPTS))
    arm = generator.choice(space.factors)
    return _sample(
        search, space, trials, generator.getrandbits(31), {name: arm[name] for name in space.choices}, user_attrs
    )


def seed_of(*parts: object) -> int:
    """Return a 31-bit seed that depends only on the arguments."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()) >> 33


def _sample(
    search: Search, space: Space, trials: Sequence[FrozenTrial], seed: int, fixed: Mapping[str, Any],
    user_attrs: Mapping[str, int],
) -> FrozenTrial | None:  # fmt: skip
    with warnings.catch_warnings():  # Optuna's version is pinned
        warnings.simplefilter("ignore", ExperimentalWarning)
        memory = optuna.create_study(directions=search.directions, sampler=_sampler(search, seed))
        memory.add_trials(trials)
        if fixed:
            memory.enqueue_trial(dict(fixed))
        trial = memory.ask()
        if not space.suggest(trial):
            return None
    sampled = memory.get_trials(deepcopy=False)[-1]
    kept = {name: value for name, value in sampled.system_attrs.items() if name != "fixed_params"}
    return create_trial(
        state=TrialState.RUNNING, params=sampled.params, distributions=sampled.distributions,
        user_attrs=dict(user_attrs), system_attrs=kept,
    )  # fmt: skip


def _sampler(search: Search, seed: int) -> BaseSampler:
    match search.sampler:
        case "tpe":
            return TPESampler(seed=seed, constant_liar=True)
        case "gp":
            return GPSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)


def _grid_point(search: Search, space: Space, name: str, trials: Sequence[FrozenTrial]) -> Values | None:
    tried = [trial.params for trial in trials]
    untried = [point for point in space.all_points() if point not in tried]
    # A fixed order of the grid, so that the next point does not depend on the order of earlier trials.
    return min(untried, key=lambda point: seed_of(search.seed, name, sorted(point.items(), key=str)), default=None)
