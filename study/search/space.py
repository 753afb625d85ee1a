"""Convert the search space of a study file to Optuna's distributions, and parameters back to settings."""

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
"""Factor values of an arm, as text."""
Scalar = str | float | int | bool | None


def encoded(value: object) -> Scalar:
    """Return a value as Optuna stores it: non-scalar values become text."""
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
        first, last, step = parameter.steps
        if all(isinstance(value, int) for value in parameter.steps):
            return IntDistribution(int(first), int(last), step=int(step))
        return FloatDistribution(first, last, step=step)
    return CategoricalDistribution([encoded(value) for value in parameter.choices or ()])


def decoded(parameter: Parameter, value: Any) -> Any:  # noqa: ANN401 - any setting
    """Return the setting for a value that Optuna stores."""
    for choice in parameter.choices or ():
        if encoded(choice) == value and type(encoded(choice)) is type(value):
            return choice
    return value


def grid_values(parameter: Parameter) -> list[Any]:
    """Return all values of a discrete parameter."""
    allowed = distribution(parameter)
    if isinstance(allowed, CategoricalDistribution):
        return list(allowed.choices)
    if isinstance(allowed, IntDistribution):
        return list(range(allowed.low, allowed.high + 1, allowed.step))
    assert isinstance(allowed, FloatDistribution), "there are three kinds of distributions"
    step = allowed.step or 0.0  # never 0: a grid of continuous settings is rejected
    return [allowed.low + position * step for position in range(round((allowed.high - allowed.low) / step) + 1)]


class Space:
    """The space of one search: parameters and, for several arms, their factors.

    Args:
        factors: factor values of each arm.
        parameters: parameters of each arm; those that an arm lacks are not sampled for it.
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
        for arm_parameters in self.parameters:
            self._distributions |= {path: distribution(parameter) for path, parameter in arm_parameters.items()}

    def _key(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(values.get(name) for name in self.choices)

    @property
    def digest(self) -> str:
        """Return a hash of the space in 8 digits: each space needs its own Optuna study."""
        distributions = {name: distribution_to_json(value) for name, value in self._distributions.items()}
        return digest(distributions)[:8]

    def arm(self, params: Mapping[str, Any]) -> int | None:
        """Return the arm with the sampled factors; None if there is no such arm."""
        return self._arms.get(self._key(params))

    def suggest(self, trial: Trial) -> bool:
        """Sample factors and parameters; return False, without parameters, if the factors match no arm."""
        for name in self.choices:
            trial._suggest(name, self._distributions[name])
        arm = self.arm(trial.params)
        if arm is None:
            return False
        for path in self.parameters[arm]:
            trial._suggest(path, self._distributions[path])
        return True

    def settings(self, params: Mapping[str, Any]) -> Values:
        """Return the sampled settings by path, as values of the study file."""
        parameters = self.parameters[self.arm(params) or 0]
        return {path: decoded(parameter, params[path]) for path, parameter in parameters.items()}

    def fitting(self, params: Mapping[str, Any], defaults: Mapping[str, Any]) -> Values | None:
        """Return the parameters of an older trial, completed from `defaults`; None if they are not in this space."""
        available = {**{name: encoded(value) for name, value in defaults.items()}, **params}
        arm = self.arm(available)
        if arm is None:
            return None
        names = [*self.choices, *self.parameters[arm]]
        if not all(name in available and _contains_value(self._distributions[name], available[name]) for name in names):
            return None
        # A parameter that is no longer searched has the value of the file; the digest shows whether that changed.
        return {name: available[name] for name in names}

    def distributions_of(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Return the distributions of sampled parameters."""
        return {name: self._distributions[name] for name in params}

    def all_points(self) -> list[Values]:
        """Return all points of the grid, arm by arm."""
        points: list[Values] = []
        for row, parameters in zip(self.factors, self.parameters, strict=True):
            rows: list[Values] = [{name: row[name] for name in self.choices}]
            for path, parameter in parameters.items():
                rows = [{**point, path: value} for point in rows for value in grid_values(parameter)]
            points += rows
        return points


def _contains_value(allowed: BaseDistribution, value: Any) -> bool:  # noqa: ANN401
    try:
        return bool(allowed._contains(allowed.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False


optuna.logging.set_verbosity(optuna.logging.ERROR)
