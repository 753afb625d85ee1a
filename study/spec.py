"""The study file's schema. Cross-references are checked in `study.checks`, data in `study.cohort`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from datasets.settings import AugmentSettings, FileList, ImageSettings, Place
from datasets.sources import DataSettings
from models.settings import (
    ClassificationSettings,
    LocalisationSettings,
    OptimizerSettings,
    Part,
    ReconstructionSettings,
    ScheduleSettings,
    SegmentationSettings,
)
from study.document import Document, with_paths

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
FreezeName = Literal[
    "encoder", "decoder", "encoder.stage1", "encoder.stage2", "encoder.stage3", "encoder.stage4", "encoder.stage5"
]


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageOverride(Settings):
    """What a stage changes of the study's `image`."""

    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["stretch", "letterbox"] | None = None


class EarlyStopping(Settings):
    """Stop when the monitored score has not improved by `min_delta` for `patience` epochs."""

    patience: Positive
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class StageBase(Settings):
    """What every stage may say. One epoch is one pass over its training images."""

    data: str
    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 8
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    augment: AugmentSettings = AugmentSettings()
    precision: Literal["float32", "bf16"] = "float32"
    seed: Seed | None = None
    architecture: str | None = None
    backbone: str | None = None
    image: ImageOverride = ImageOverride()

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            given = "both are given" if self.epochs else "neither is given"
            raise ValueError(
                f"epochs or steps: {given}; allowed: exactly one; `steps` gives every fraction equally many updates"
            )
        return self


class ReconstructionStage(StageBase, ReconstructionSettings):
    """An autoencoder stage."""


class ClassificationStage(StageBase, ClassificationSettings):
    """An image classification stage."""


class LocalisationStage(StageBase, LocalisationSettings):
    """A centre or box regression stage."""


class SegmentationStage(StageBase, SegmentationSettings):
    """A segmentation stage. `threshold` replaces `evaluate.threshold` when this stage is scored."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None


Stage = ReconstructionStage | ClassificationStage | LocalisationStage | SegmentationStage
StageSettings = Annotated[Stage, Field(discriminator="task")]


class Link(Settings):
    """One step of a pathway: a stage, and what it takes over from the one before it."""

    stage: str
    carry: Literal["encoder", "encoder+decoder"] = "encoder"
    freeze: tuple[FreezeName, ...] = ()
    unfreeze_after: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        return {"stage": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _unfreeze_what(self) -> Self:
        if self.unfreeze_after is not None and not self.freeze:
            raise ValueError("unfreeze_after without freeze; allowed: together with freeze; name what is frozen")
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the carried parts."""
        return ("encoder",) if self.carry == "encoder" else ("encoder", "decoder")


class WeightsFile(Settings):
    """Initial weights from a safetensors file."""

    file: Place


InitialWeights = str | WeightsFile
"""random, a name of published weights such as imagenet, or a file."""
FactorValue = Any
Rule = Mapping[str, FactorValue]
COMPARE_KEYS = frozenset({"architecture", "backbone", "initial_weights", "pathway", "labelled_fraction",
                          "labelled_images", "folds", "seeds", "baseline", "exclude", "include"})  # fmt: skip


def _fixed(name: str, value: FactorValue) -> FactorValue:
    if name == "initial_weights" and isinstance(value, Mapping) and set(value) == {"file"}:
        return WeightsFile(file=Path(str(value["file"])))
    if name in ("architecture", "backbone", "pathway", "initial_weights") and not isinstance(value, str):
        raise ValueError(f"{name} is {value}; allowed: one name; write a rule for each")
    return value


class Compare(Settings):
    """The grid of arms. A key with dots is a further factor: a path into the study file."""

    architecture: tuple[str, ...] = Field(min_length=1)
    backbone: tuple[str, ...] = Field(min_length=1)
    initial_weights: tuple[InitialWeights, ...] = Field(default=("random",), min_length=1)
    pathway: tuple[str, ...] | None = Field(default=None, min_length=1)
    labelled_fraction: tuple[Fraction, ...] | None = Field(default=None, min_length=1)
    labelled_images: tuple[Positive, ...] | None = Field(default=None, min_length=1)
    factors: Mapping[str, tuple[FactorValue, ...]] = {}
    folds: Positive = 5
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    baseline: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()
    include: tuple[Rule, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _gather_factors(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        if not isinstance(value, Mapping) or "factors" in value:
            return value
        dotted = {key: value[key] for key in value if "." in str(key)}
        plain = {key: value[key] for key in value if key not in dotted}
        return {**plain, "factors": dotted} if dotted else plain

    @field_validator("baseline", mode="before")
    @classmethod
    def _one_family(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        return (value,) if isinstance(value, Mapping) else value

    @field_validator("baseline", "exclude", "include")
    @classmethod
    def _fixed_factors(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        """Read the values of rules as the lists they choose from are read."""
        return tuple({name: _fixed(name, value) for name, value in rule.items()} for rule in rules)

    @field_validator("architecture", "backbone", "initial_weights", "pathway", "labelled_fraction", "labelled_images",
                     "seeds")  # fmt: skip
    @classmethod
    def _each_once(cls, value: Sequence[object] | None) -> Sequence[object] | None:
        repeated = sorted({str(item) for item in value or () if list(value or ()).count(item) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} stands twice; allowed: each value once; remove the repetition")
        return value

    @field_validator("factors")
    @classmethod
    def _some_values(cls, value: Mapping[str, tuple[object, ...]]) -> Mapping[str, tuple[object, ...]]:
        for path, values in value.items():
            if not values or any(list(values).count(item) > 1 for item in values):
                raise ValueError(f"{path} is {list(values)}; allowed: a list of different values, at least one")
        return value

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if self.labelled_fraction and self.labelled_images:
            raise ValueError("labelled_fraction and labelled_images are both given; allowed: one of them; remove one")
        return self

    @model_validator(mode="after")
    def _files_by_name(self) -> Self:
        """Tables tell files of weights apart by their names alone."""
        places: dict[str, Path] = {}
        for weights in self._weights():
            if isinstance(weights, WeightsFile):
                other = places.setdefault(weights.file.name, weights.file)
                if other != weights.file:
                    raise ValueError(
                        f"initial_weights names {other} and {weights.file}; allowed: files of different names; "
                        "rename one"
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


class Validation(Settings):
    """Below `min_cases` validation images nothing validates."""

    min_cases: Annotated[int, Field(ge=1)] = 5


class Evaluate(Settings):
    """How target stages are scored. `size` defaults to the largest target `image.size`."""

    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Metrics(Settings):
    """Which classes the means run over."""

    classes: tuple[str, ...] | None = None
    background: bool = False
    min_images: Positive = 1


class Keep(Settings):
    """Whose weights stay on disk."""

    weights: Literal["parents+best", "all", "none"] = "parents+best"


class Resources(Settings):
    """What one stage may use."""

    cpus: Positive = 1
    gpus: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: Literal["auto"] | float) -> Literal["auto"] | float:
        if value != "auto" and value > 1 and value != int(value):
            raise ValueError(f"is {value}; allowed: auto, a share up to 1, or a whole number; round it")
        return value


class Checkpoint(Settings):
    """A running stage can be resumed from every `epochs`-th epoch, at most one in `seconds`."""

    epochs: Positive = 1
    seconds: Annotated[float, Field(ge=0)] = 20.0


class StudySpec(Settings):
    """A whole study file."""

    name: Name
    data: Mapping[Name, DataSettings] = Field(min_length=1)
    image: ImageSettings = ImageSettings()
    stages: Mapping[Name, StageSettings] = Field(min_length=1)
    pathways: Mapping[Name, Annotated[tuple[Link, ...], Field(min_length=1)]] = Field(min_length=1)
    compare: Compare
    validation: Validation = Validation()
    evaluate: Evaluate = Evaluate()
    metrics: Metrics = Metrics()
    leaks: Literal["refuse", "exclude", "report"] = "refuse"
    keep: Keep = Keep()
    resources: Resources = Resources()
    checkpoint: Checkpoint = Checkpoint()


def with_absolute_places(document: Document, spec: StudySpec) -> Document:
    """Return the document with every path absolute: a study is resumed from any folder."""
    places: dict[str, object] = {}
    for name, settings in spec.data.items():
        root = getattr(settings, "root", None)
        if root is not None:
            places[f"data.{name}.root"] = str(root)
        for part in ("test", "validation"):
            listed = getattr(settings.split, part)
            if isinstance(listed, FileList):
                places[f"data.{name}.split.{part}.list"] = str(listed.list)
    return with_paths(document, places) | {"compare": _with_absolute_files(document["compare"])}


def _with_absolute_files(value: Any) -> Any:  # noqa: ANN401 - raw document
    if isinstance(value, Mapping):
        if set(value) == {"file"}:
            return {"file": str(Path(str(value["file"])).absolute())}
        return {key: _with_absolute_files(inner) for key, inner in value.items()}
    return [_with_absolute_files(inner) for inner in value] if isinstance(value, list) else value
