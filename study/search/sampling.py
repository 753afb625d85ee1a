"""The next candidate, as a pure function of the trials there are: a killed search goes on as if it had not been."""

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
"""Draws that name no arm, or that were tried, before one of the arms is drawn evenly, tried or not."""


def propose(
    search: Search, space: Space, name: str, trials: Sequence[FrozenTrial], points: Sequence[Values] = ()
) -> FrozenTrial | None:
    """Return the next trial of the search `name`, running; None where a grid has no point left.

    `points` are tried first, each once; what they leave out is drawn.

    The sampler is made anew with a seed of its own for each number, and asked in memory, so that the journal gets
    a trial whole or not at all.
    """
    tried = sum("point" in trial.user_attrs for trial in trials)
    marks = {"point": tried} if tried < len(points) else {}
    fixed = points[tried] if marks else None
    if fixed is None and search.sampler == "grid":
        fixed = _grid_point(search, space, name, trials)
        if fixed is None:
            return None
    known = [trial.params for trial in trials]
    for attempt in range(ATTEMPTS):
        found = _asked(search, space, trials, seed_of(search.seed, name, len(trials), attempt), fixed or {}, marks)
        if found is not None and (fixed or found.params not in known):
            return found
    draw = random.Random(seed_of(search.seed, name, len(trials), ATTEMPTS))
    arm = draw.choice(space.factors)
    return _asked(search, space, trials, draw.getrandbits(31), {name: arm[name] for name in space.choices}, marks)


def seed_of(*parts: object) -> int:
    """Return 31 random bits that depend on nothing but the arguments."""
    return int.from_bytes(blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()) >> 33


def _asked(
    search: Search, space: Space, trials: Sequence[FrozenTrial], seed: int, fixed: Mapping[str, Any],
    marks: Mapping[str, int],
) -> FrozenTrial | None:  # fmt: skip
    with warnings.catch_warnings():  # what is experimental in Optuna is pinned here
        warnings.simplefilter("ignore", ExperimentalWarning)
        memory = optuna.create_study(directions=search.directions, sampler=_sampler(search, seed))
        memory.add_trials(trials)
        if fixed:
            memory.enqueue_trial(dict(fixed))
        trial = memory.ask()
        if not space.suggest(trial):
            return None
    drawn = memory.get_trials(deepcopy=False)[-1]
    kept = {name: value for name, value in drawn.system_attrs.items() if name != "fixed_params"}
    return create_trial(
        state=TrialState.RUNNING, params=drawn.params, distributions=drawn.distributions, user_attrs=dict(marks),
        system_attrs=kept,
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
    left = [point for point in space.all_points() if point not in tried]
    # A fixed order of the whole grid, so that what is next does not depend on what was tried when.
    return min(left, key=lambda point: seed_of(search.seed, name, sorted(point.items(), key=str)), default=None)
