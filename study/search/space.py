"""From a study file's space to Optuna's distributions and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import Trial

from study.config.search import Parameter
from study.planning.arms import text_of
from study.planning.digest import digest

Values = dict[str, Any]
Assignment = Mapping[str, str]
"""Factors of an arm as texts."""
Scalar = str | float | int | bool | None


def encoded(value: object) -> Scalar:
    """Return a value as Optuna stores it: what is no scalar becomes its text."""
    return value if value is None or isinstance(value, str | int | float | bool) else text_of(value)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Return the distribution of one setting."""
    if parameter.uniform is not None:
        return FloatDistribution(*parameter.uniform)
    if parameter.loguniform is not None:
        return FloatDistribution(*parameter.loguniform, log=True)
    if parameter.integers is not None:
        return IntDistribution(*parameter.integers)
    if parameter.steps is not None:
        first, last, distance = parameter.steps
        if all(isinstance(value, int) for value in parameter.steps):
            return IntDistribution(int(first), int(last), step=int(distance))
        return FloatDistribution(first, last, step=distance)
    return CategoricalDistribution([encoded(value) for value in parameter.choices or ()])


def decoded(parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any setting
    """Return the setting that a stored value stands for."""
    for choice in parameter.choices or ():
        if encoded(choice) == value and type(encoded(choice)) is type(value):
            return choice
    return value


def grid_values(parameter: Parameter) -> list[Any]:
    """Return every value of a setting that has finitely many."""
    spread = distribution(parameter)
    if isinstance(spread, CategoricalDistribution):
        return list(spread.choices)
    if isinstance(spread, IntDistribution):
        return list(range(spread.low, spread.high + 1, spread.step))
    assert isinstance(spread, FloatDistribution), "there are three kinds"
    step = spread.step or 0.0  # never: a grid of continuous settings is refused
    return [spread.low + position * step for position in range(round((spread.high - spread.low) / step) + 1)]


class Space:
    """What one search draws from: settings and, where it has several arms, their factors.

    `parameters` of each arm are those whose stages its chain has; a setting that an arm lacks is not drawn for it.
    """

    def __init__(self, factors: Sequence[Assignment], parameters: Sequence[Mapping[str, Parameter]]) -> None:
        self.factors, self.parameters = list(factors), list(parameters)
        self.choices: dict[str, list[str]] = {}
        if len(self.factors) > 1:
            for name in self.factors[0]:
                texts = list(dict.fromkeys(row[name] for row in self.factors))
                if len(texts) > 1:
                    self.choices[name] = texts
        self._arms = {self._key(row): number for number, row in enumerate(self.factors)}
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(texts) for name, texts in self.choices.items()
        }
        for own in self.parameters:
            self._distributions |= {path: distribution(one) for path, one in own.items()}

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values.get(name) for name in self.choices)

    @property
    def digest(self) -> str:
        """Return eight digits that name the space; Optuna's studies cannot change theirs."""
        spreads = {name: distribution_to_json(spread) for name, spread in self._distributions.items()}
        return digest(spreads)[:8]

    def arm(self, params: Mapping[str, Any]) -> int | None:
        """Return which arm the drawn factors name; None for a combination that is none."""
        return self._arms.get(self._key(params))

    def suggest(self, trial: Trial) -> bool:
        """Draw everything; False, with settings left undrawn, where the factors name no arm."""
        for name in self.choices:
            trial._suggest(name, self._distributions[name])
        arm = self.arm(trial.params)
        if arm is None:
            return False
        for path in self.parameters[arm]:
            trial._suggest(path, self._distributions[path])
        return True

    def settings(self, params: Mapping[str, Any]) -> Values:
        """Return the drawn settings by path, as the study file would spell them."""
        own = self.parameters[self.arm(params) or 0]
        return {path: decoded(one, params[path]) for path, one in own.items()}

    def fitting(self, params: Mapping[str, Any], defaults: Mapping[str, Any]) -> Values | None:
        """Return an older trial's parameters in this space, missing ones from `defaults`; None if one lies outside."""
        known = {**{name: encoded(value) for name, value in defaults.items()}, **params}
        arm = self.arm(known)
        if arm is None:
            return None
        names = [*self.choices, *self.parameters[arm]]
        if not all(name in known and _holds(self._distributions[name], known[name]) for name in names):
            return None
        # A setting that is no longer searched has the file's value now; whether it is the same the digest tells.
        return {name: known[name] for name in names}

    def distributions_of(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the distributions of drawn parameters."""
        return {name: self._distributions[name] for name in params}

    def all_points(self) -> list[Values]:
        """Return the whole grid, arm by arm."""
        points: list[Values] = []
        for row, own in zip(self.factors, self.parameters, strict=True):
            rows: list[Values] = [{name: row[name] for name in self.choices}]
            for path, one in own.items():
                rows = [{**point, path: value} for point in rows for value in grid_values(one)]
            points += rows
        return points


def _holds(spread: BaseDistribution, value: Any) -> bool:  # noqa: ANN401
    try:
        return bool(spread._contains(spread.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


optuna.logging.set_verbosity(optuna.logging.ERROR)
