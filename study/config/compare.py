"""The `compare` section of a study file: the grid of arms, include and exclude rules, the baseline."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from datasets.settings import Place
from models.task_settings.weak_labels import Rest
from results.schema import DEFAULT_ROPE, METRICS, Level
from study.config.fields import MAX_LISTED, Count, Fraction, Seed, Settings, each_once
from study.config.recipes import RecipeName


class WeightsFile(Settings):
    """Initial weights of the encoder from a file of safetensors or torch."""

    file: Place
    allow: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=MAX_LISTED)
    """Names or patterns of tensors that the file may lack, or have beside those of the encoder."""


InitialWeights = str | WeightsFile
"""random, a name of published weights such as imagenet, or a file."""
FactorValue = Any
Hours = Annotated[float, Field(gt=0, le=10**6)]
Rope = Annotated[float, Field(gt=0, lt=1)] | Mapping[str, Annotated[float, Field(gt=0)]]
Rule = Mapping[str, FactorValue]
RECIPE = "recipe"
"""The factor that sets the recipe of all stages that follow the one of the study."""
REST = "rest"
"""The factor that sets which weak labels the training images beyond the labelled fraction have."""
STAGE_FACTORS = frozenset({RECIPE, REST})
"""Factors without dots: a setting of several stages."""
COMPARE_KEYS = frozenset({"architecture", "backbone", "initial_weights", "pathway", "labelled_fraction",
                          "labelled_images", "folds", "seeds", "baseline", "exclude", "include", "recipe", "rest",
                          "rope", "top", "hours"})  # fmt: skip


def source_of(weights: InitialWeights) -> str:
    """Return the name of weights, or the path of their file."""
    return str(weights.file) if isinstance(weights, WeightsFile) else weights


def fixed_rule(rule: Rule) -> Rule:
    """Parse the values of a rule like the entries of the factor lists. Raises `ValueError`."""
    return {name: _parse_value(name, value) for name, value in rule.items()}


def _parse_value(name: str, value: FactorValue) -> FactorValue:
    if name == "initial_weights" and isinstance(value, Mapping) and {"file"} <= set(value) <= {"file", "allow"}:
        return WeightsFile(file=Path(str(value["file"])), allow=value.get("allow", ()))
    if name in ("architecture", "backbone", "pathway", "initial_weights") and not isinstance(value, str):
        raise ValueError(f"{name} is {value}; allowed: one name; write a rule for each")
    return value


def _is_file(value: FactorValue) -> bool:
    return isinstance(value, WeightsFile)


def _as_listed(value: FactorValue, listed: Mapping[Path, WeightsFile]) -> FactorValue:
    """Return the listed weights for a rule that names only their file."""
    return listed.get(value.file, value) if isinstance(value, WeightsFile) and not value.allow else value


class Compare(Settings):
    """The grid of arms. A key with dots is a further factor: a path into the study file."""

    architecture: tuple[str, ...] = Field(min_length=1, max_length=MAX_LISTED)
    backbone: tuple[str, ...] = Field(min_length=1, max_length=MAX_LISTED)
    initial_weights: tuple[InitialWeights, ...] = Field(default=("random",), min_length=1, max_length=MAX_LISTED)
    pathway: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=MAX_LISTED)
    recipe: tuple[RecipeName, ...] | None = Field(default=None, min_length=1, max_length=MAX_LISTED)
    """Also one of the factors."""
    rest: tuple[Rest, ...] | None = Field(default=None, min_length=1, max_length=MAX_LISTED)
    """Also one of the factors."""
    labelled_fraction: tuple[Fraction, ...] | None = Field(default=None, min_length=1, max_length=MAX_LISTED)
    labelled_images: tuple[Count, ...] | None = Field(default=None, min_length=1, max_length=MAX_LISTED)
    factors: Mapping[str, tuple[FactorValue, ...]] = {}
    folds: Annotated[int, Field(ge=1, le=MAX_LISTED)] = 5
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1, max_length=MAX_LISTED)
    baseline: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()
    include: tuple[Rule, ...] = ()
    rope: Rope = DEFAULT_ROPE
    """Half width of the region of practical equivalence: one for metrics within 0..1, or a mapping by metric."""
    top: Count | None = None
    """Compare only this many arms, those with the best search results, and their baselines."""
    hours: tuple[Hours, ...] = Field(default=(), max_length=MAX_LISTED)
    """Budgets of annotation at which arms are compared."""

    @model_validator(mode="before")
    @classmethod
    def _gather_factors(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        if not isinstance(value, Mapping) or "factors" in value:
            return value
        dotted = {key: value[key] for key in value if "." in str(key) or key in STAGE_FACTORS}
        plain = {key: value[key] for key in value if key not in dotted or key in STAGE_FACTORS}
        return {**plain, "factors": dotted} if dotted else plain

    @field_validator("baseline", mode="before")
    @classmethod
    def _wrap_single_rule(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        return ((value,) if value else ()) if isinstance(value, Mapping) else value

    @field_validator("baseline", "exclude", "include")
    @classmethod
    def _parse_rules(cls, rules: tuple[Rule, ...], info: ValidationInfo) -> tuple[Rule, ...]:
        if not all(rules):
            raise ValueError("holds an empty rule, {}; allowed: rules that name a factor; add one or remove the rule")
        listed = {weights.file: weights for weights in info.data.get("initial_weights", ()) if _is_file(weights)}
        parsed = map(fixed_rule, rules)
        return tuple({name: _as_listed(value, listed) for name, value in rule.items()} for rule in parsed)

    _each_once = field_validator(
        "architecture", "backbone", "initial_weights", "pathway", "recipe", "rest", "labelled_fraction",
        "labelled_images", "seeds", "baseline", "hours",
    )(each_once)  # fmt: skip

    @field_validator("rope")
    @classmethod
    def _check_rope_metrics(cls, value: Rope) -> Rope:
        unknown = [name for name in value if name not in METRICS] if isinstance(value, Mapping) else []
        if unknown:
            raise ValueError(f"rope names {', '.join(unknown)}; allowed: {', '.join(METRICS)}; correct the name")
        return value

    @field_validator("factors")
    @classmethod
    def _check_factor_values(cls, value: Mapping[str, tuple[object, ...]]) -> Mapping[str, tuple[object, ...]]:
        for path, values in value.items():
            if len(values) > MAX_LISTED:
                raise ValueError(f"{path} has {len(values):,} values; allowed: at most {MAX_LISTED:,}; remove some")
            repeats = path not in STAGE_FACTORS and any(list(values).count(item) > 1 for item in values)
            if not values or repeats:
                raise ValueError(f"{path} is {list(values)}; allowed: a list of different values, at least one")
        return value

    @model_validator(mode="after")
    def _check_one_label_axis(self) -> Self:
        if self.labelled_fraction and self.labelled_images:
            raise ValueError("labelled_fraction and labelled_images are both given; allowed: one of them; remove one")
        return self

    @model_validator(mode="after")
    def _check_file_names(self) -> Self:
        """Require different file names: tables identify weights files by name only."""
        by_name: dict[str, WeightsFile] = {}
        for weights in self._weights():
            if isinstance(weights, WeightsFile):
                first = by_name.setdefault(weights.file.name, weights)
                if first.file != weights.file:
                    raise ValueError(
                        f"initial_weights names {first.file} and {weights.file}; allowed: files of different names; "
                        "rename one"
                    )
                if first.allow != weights.allow:
                    raise ValueError(
                        f"initial_weights names {weights.file} with different allow; allowed: each file with one "
                        "allow; copy the file under another name"
                    )
        return self

    def _weights(self) -> Iterator[object]:
        yield from self.initial_weights
        for rule in (*self.baseline, *self.exclude, *self.include):
            yield rule.get("initial_weights")

    @property
    def labelled(self) -> tuple[float | int, ...]:
        """Return the amounts of labelled data: fractions (float) or numbers of images (int)."""
        return self.labelled_images or self.labelled_fraction or (1.0,)

    @property
    def level(self) -> Level:
        """Return the column by which cells of equal arms differ."""
        return "labelled_images" if self.labelled_images else "labelled_fraction"
