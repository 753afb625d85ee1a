"""The section `search` of a study file."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from study.config.fields import MAX_LISTED, Count, Fraction, Name, Seed, Settings

Metric = Literal["val/mean_iou", "val/dice", "val/loss", "parameters", "seconds"]
MINIMISED: frozenset[str] = frozenset({"val/loss", "parameters", "seconds"})
SAMPLERS_OF_SEVERAL = ("nsga2", "random", "grid")
Pair = tuple[float, float]
Whole = Annotated[int, Field(ge=-(10**9), le=10**9)]
MAX_GRID = 100_000
"""Points of a grid."""
ON_GRID = 1e-8
"""Largest distance of a value from a step, in steps, as in Optuna's distributions."""


class Parameter(Settings):
    """The range of one setting; exactly one kind. Bounds are inclusive. `steps` are [first, last, distance]."""

    uniform: Pair | None = None
    loguniform: Pair | None = None
    integers: tuple[Whole, Whole] | None = None
    steps: tuple[Whole, Whole, Whole] | tuple[float, float, float] | None = None
    choices: Annotated[tuple[Any, ...], Field(min_length=1, max_length=MAX_LISTED)] | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        kinds = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(kinds) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise ValueError(f"{' and '.join(kinds) or 'nothing'} is given; allowed: exactly one of {allowed}")
        ends = self.uniform or self.loguniform or self.integers or self.steps
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{kinds[0]} is from {ends[0]} to {ends[1]}; allowed: the smaller end first; swap them")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform begins at {self.loguniform[0]}; allowed: above 0; raise it")
        if self.steps is not None and self.steps[2] <= 0:
            raise ValueError(f"steps are {self.steps[2]} apart; allowed: above 0; raise it")
        return self

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and any(list(value).count(item) > 1 for item in value):
            raise ValueError(f"choices are {list(value)}; allowed: each once; remove the repetition")
        return value

    @property
    def size(self) -> float:
        """Return how many values there are, infinity for a continuous setting."""
        if self.integers is not None:
            return self.integers[1] - self.integers[0] + 1
        if self.steps is not None:
            return (self.steps[1] - self.steps[0]) // self.steps[2] + 1
        return math.inf if self.choices is None else len(self.choices)

    @property
    def ends(self) -> Sequence[Any]:
        """Return the values to validate in place of the entire range: both bounds, or every choice."""
        pair = self.uniform or self.loguniform or self.integers or self.steps
        return list(self.choices or ()) if pair is None else list(pair[:2])

    def holds(self, value: object) -> bool:
        """Return whether a value is in the range."""
        if self.choices is not None:
            return value in self.choices
        first, last, *step_size = self.uniform or self.loguniform or self.steps or (*(self.integers or (0, 0)), 1)
        try:
            number = float(value)  # type: ignore[arg-type]  # refused below
        except (TypeError, ValueError):
            return False
        steps = (number - first) / step_size[0] if step_size else 0.0
        return first <= number <= last and abs(steps - round(steps)) < ON_GRID

    @property
    def is_continuous(self) -> bool:
        """Return whether the range is continuous, so that no grid can contain all values."""
        return self.uniform is not None or self.loguniform is not None


class SuccessiveHalving(Settings):
    """At epochs `grace_period` x `reduction_factor`^k only the best 1 / `reduction_factor` of the trials continue."""

    grace_period: Count = 1
    reduction_factor: Annotated[int, Field(ge=2, le=10**6)] = 3


class Median(Settings):
    """Stop trials below the median of earlier trials at the same epoch; the first `trials` are never stopped."""

    grace_period: Count = 1
    trials: Count = 5


class Prune(Settings):
    """The pruner of candidates; exactly one."""

    successive_halving: SuccessiveHalving | None = None
    median: Median | None = None

    @model_validator(mode="after")
    def _check_one_pruner(self) -> Self:
        if (self.successive_halving is None) == (self.median is None):
            raise ValueError("successive_halving and median; allowed: exactly one of them, such as {median: {}}")
        return self


class Search(Settings):
    """The search for settings: search space, images, number of trials."""

    scope: Literal["arm", "study"] = "arm"
    trials: Count
    metric: Metric | Annotated[tuple[Metric, ...], Field(min_length=1)] = "val/mean_iou"
    reserve: Fraction = 0.2
    nested: bool = False
    space: Mapping[str, Parameter] = {}
    sampler: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    seed: Seed = 0
    prune: Prune | None = None
    points: Annotated[tuple[Mapping[str, Any], ...], Field(max_length=MAX_LISTED)] = ()
    warm_start: Name | None = None
    defaults: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        problem = self._images_problem() or self._metric_problem() or self._space_problem()
        if problem:
            raise ValueError(problem)
        return self

    def _images_problem(self) -> str | None:
        if self.nested and "reserve" in self.model_fields_set:
            return "reserve and nested are both given; allowed: one of them; remove one"
        if self.nested and self.scope == "study":
            return "nested with scope study; allowed: nested with scope arm; use reserve"
        return None

    def _metric_problem(self) -> str | None:
        several = len(self.metrics) > 1
        if several and self.prune is not None:
            return "prune with several metrics; allowed: one metric; remove prune or name one metric"
        if several and self.sampler not in SAMPLERS_OF_SEVERAL:
            allowed = ", ".join(SAMPLERS_OF_SEVERAL)
            return f"sampler {self.sampler} with several metrics; allowed: {allowed}; choose one of these"
        if self.sampler == "nsga2" and not several:
            return "sampler nsga2 with one metric; allowed: several, such as [val/mean_iou, parameters]; take tpe"
        if self.prune is not None and not self.metrics[0].startswith("val/"):
            return f"prune by {self.metrics[0]}, which no epoch reports; allowed: a metric val/...; choose one"
        if len(set(self.metrics)) < len(self.metrics):
            return f"metric is {', '.join(self.metrics)}; allowed: each once; remove the repetition"
        return None

    def _space_problem(self) -> str | None:
        continuous = [path for path, parameter in self.space.items() if parameter.is_continuous]
        if self.sampler == "grid" and continuous:
            return f"sampler grid with {continuous[0]} continuous; allowed: integers, steps, choices; list the values"
        points = math.prod(parameter.size for parameter in self.space.values())
        if self.sampler == "grid" and points > MAX_GRID:
            return (
                f"sampler grid with {points:.3g} points; allowed: at most {MAX_GRID:,}; list fewer values, or take tpe"
            )
        if not self.space and self.scope == "arm":
            return "space is empty; allowed: at least one setting; name one, such as target.optimizer.lr"
        return None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the metrics; candidates are finally ranked by the first."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Return the direction of each metric, as Optuna names it."""
        return ["minimize" if metric in MINIMISED else "maximize" for metric in self.metrics]

    @property
    def sign(self) -> float:
        """Return the factor that turns the first metric into one to be minimized."""
        return 1.0 if self.directions[0] == "minimize" else -1.0
