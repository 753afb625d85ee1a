"""The schema of a study file. `study.planning.checks` follow references, `study.planning.dataset_view` opens data."""

import math
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    TypeAdapter,
    field_validator,
    model_validator,
)

from datasets.settings import FileList, ImageSettings
from datasets.sources import DataSettings
from models.settings import NetworkPart
from results.metrics.surface import ShapeSettings
from study.config.compare import Compare, Rule, fixed_rule
from study.config.document import Document, with_paths
from study.config.evaluation import Evaluate
from study.config.fields import Count, Machines, Name, Settings, each_once
from study.config.recipes import RecipeName
from study.config.search import Search
from study.config.stages import StageSettings

MAX_REPLICATES = 200_000
"""Arms x amounts of labels x folds x seeds."""
FreezeName = Literal[
    "encoder", "decoder", "encoder.stage1", "encoder.stage2", "encoder.stage3", "encoder.stage4", "encoder.stage5"
]


class Link(Settings):
    """One step of a pathway: a stage, and the parts it initializes from the previous stage."""

    stage: str
    carry: Literal["none", "encoder", "encoder+decoder", "encoder+decoder+head"] = "encoder"
    freeze: tuple[FreezeName, ...] = ()
    unfreeze_after: Count | None = None
    keep_dropout: bool = False
    """Whether dropout layers of frozen parts stay active in training."""

    @model_validator(mode="before")
    @classmethod
    def _expand_name(cls, value: Any) -> Any:  # noqa: ANN401 - raw document
        return {"stage": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_unfreeze(self) -> Self:
        if self.unfreeze_after is not None and not self.freeze:
            raise ValueError("unfreeze_after without freeze; allowed: together with freeze; name what is frozen")
        if self.keep_dropout and not self.freeze:
            raise ValueError("keep_dropout without freeze; allowed: together with freeze; name what is frozen")
        return self

    @property
    def parts(self) -> tuple[NetworkPart, ...]:
        """Return the parts whose weights are carried over."""
        parts: tuple[NetworkPart, ...] = ("encoder", "decoder", "head")
        return () if self.carry == "none" else parts[: self.carry.count("+") + 1]


class Validation(Settings):
    """With fewer than `min_cases` validation images or volumes, a stage trains without validation."""

    min_cases: Count = 5


class Metrics(Settings):
    """Classes over which means are computed, and metrics of contours, centre lines and lesions.

    The latter are computed if `tolerance` is given: the distance in pixels of the image up to which two contours count
    as equal. `lesion_iou` is the minimum IoU of two matching lesions.
    """

    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    background: bool = False
    min_images: Count = 1
    tolerance: Annotated[float, Field(ge=0, le=10**6)] | None = None
    lesion_iou: Annotated[float, Field(gt=0, le=1)] = 0.1

    _each_once = field_validator("classes")(each_once)

    @property
    def shape(self) -> ShapeSettings | None:
        """Return the settings of the metrics of shapes; None if they are not computed."""
        return None if self.tolerance is None else ShapeSettings(tolerance=self.tolerance, lesion_iou=self.lesion_iou)


class Keep(Settings):
    """Which stages keep their weights on disk."""

    weights: Literal["parents+best", "all", "none"] = "parents+best"


class Resources(Settings):
    """Resources of one stage."""

    cpus: Machines = 1
    gpus: Literal["auto"] | Annotated[float, Field(ge=0, le=4096)] = "auto"
    workers: Machines = 1
    """Processes that share each batch of a stage; `cpus` and `gpus` are per process."""
    compile: bool = False
    """Compile networks with `torch.compile`: minutes at the start of a stage, faster updates on a GPU."""
    cache_features: bool = True
    """Keep the feature maps of frozen encoders in the cache."""
    pack: bool = False
    """Reserve the share of a GPU that a similar stage needed as memory, instead of `gpus`."""

    @model_validator(mode="after")
    def _check_pack(self) -> Self:
        if self.pack and (self.workers > 1 or self.gpus not in ("auto", 1)):
            settings = f"pack with workers {self.workers} and gpus {self.gpus}"
            raise ValueError(f"{settings}; allowed: with workers 1 and gpus auto or 1; leave these out, or pack")
        return self

    @model_validator(mode="after")
    def _check_gpus_of_workers(self) -> Self:
        if self.workers > 1 and self.gpus != "auto" and self.gpus != int(self.gpus):
            raise ValueError(
                f"gpus {self.gpus} with workers {self.workers}; allowed: with several workers auto or a whole number, "
                "because NCCL does not support two workers on one GPU; set gpus: 1, or workers: 1"
            )
        return self

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, value: Literal["auto"] | float) -> Literal["auto"] | float:
        if value != "auto" and value > 1 and value != int(value):
            raise ValueError(f"is {value}; allowed: auto, a share up to 1, or a whole number; round it")
        return value


class Checkpoint(Settings):
    """A running stage can be resumed from every `epochs`-th epoch, at most one in `seconds`."""

    epochs: Count = 1
    seconds: Annotated[float, Field(ge=0)] = 20.0


class Tracking(Settings):
    """Experiment trackers to which every stage is logged as a run; never part of a digest."""

    tensorboard: bool = False
    mlflow: str | None = None

    @field_validator("mlflow")
    @classmethod
    def _check_no_secrets(cls, value: str | None) -> str | None:
        url = urlsplit(value or "")
        if "@" in url.netloc or "password" in url.query.lower() or "token" in url.query.lower():
            raise ValueError(
                "has a user or a password in it, which would be kept with the study; allowed: an address without; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the study is started"
            )
        return value


class PublishedValue(Settings):
    """One value and the cells it is compared with; factors that `match` omits may have any value."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    match: Annotated[Rule, AfterValidator(fixed_rule)] = Field(default_factory=dict)


class Published(Settings):
    """Values of one metric that a paper reports, for `study table --published`.

    With `stage` they are scores of that localisation stage, for `study table --stage`. Without `split` they are shown
    for every split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    source: str
    metric: str = "mean_iou"
    class_: str = Field(default="macro", alias="class")
    aggregation: Literal["dataset", "case"] = "dataset"
    stage: str | None = None
    split: Literal["test", "validation"] | None = None
    values: Annotated[tuple[PublishedValue, ...], Field(min_length=1)]


PUBLISHED: TypeAdapter[tuple[Published, ...]] = TypeAdapter(tuple[Published, ...])


class StudySpec(Settings):
    """A study file."""

    name: Name
    recipe: RecipeName | None = None
    """The recipe of stages that name none."""
    data: Mapping[Name, DataSettings] = Field(min_length=1)
    image: ImageSettings = ImageSettings()
    stages: Mapping[Name, StageSettings] = Field(min_length=1)
    pathways: Mapping[Name, Annotated[tuple[Link, ...], Field(min_length=1)]] = Field(min_length=1)
    compare: Compare
    search: Search | None = None
    validation: Validation = Validation()
    evaluate: Evaluate = Evaluate()
    metrics: Metrics = Metrics()
    leaks: Literal["refuse", "exclude", "report"] = "refuse"
    keep: Keep = Keep()
    resources: Resources = Resources()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()
    published: tuple[Published, ...] = ()

    _own_recipes: frozenset[str] = PrivateAttr(default=frozenset())

    @model_validator(mode="wrap")
    @classmethod
    def _pass_recipe(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - raw document
        """Give the recipe of the study to the stages without one."""
        stages = value.get("stages") if isinstance(value, Mapping) else None
        if not isinstance(stages, Mapping):
            return handler(value)
        own = {name for name, stage in stages.items() if isinstance(stage, Mapping) and stage.get("recipe")}
        recipe = value.get("recipe")
        if recipe in get_args(RecipeName):
            named = {
                name: {**stage, "recipe": recipe} if isinstance(stage, Mapping) and name not in own else stage
                for name, stage in stages.items()
            }
            value = {**value, "stages": named}
        spec = handler(value)
        spec._own_recipes = frozenset(own)
        return spec

    @property
    def has_annotation_cost(self) -> bool:
        """Return whether any data set states what its annotation costs."""
        return any(settings.annotation_minutes is not None for settings in self.data.values())

    def has_own_recipe(self, stage: str) -> bool:
        """Return whether a stage names a recipe itself, which a factor `recipe` then leaves as it is."""
        return stage in self._own_recipes

    @model_validator(mode="after")
    def _check_replicates(self) -> Self:
        compare = self.compare
        lists: list[Sized] = [
            compare.architecture,
            compare.backbone,
            compare.initial_weights,
            compare.pathway or self.pathways,
        ]
        lists += [*compare.factors.values(), compare.labelled, compare.seeds]
        replicates = math.prod(map(len, lists)) * compare.folds
        if replicates > MAX_REPLICATES:
            raise ValueError(
                f"compare: {replicates:,} replicates before exclude; allowed: at most {MAX_REPLICATES:,}; vary fewer "
                "factors at once, or fewer folds and seeds"
            )
        return self

    @model_validator(mode="after")
    def _check_top(self) -> Self:
        if self.compare.top is not None and self.search is None:
            setting = f"compare.top is {self.compare.top} without search"
            raise ValueError(f"{setting}; allowed: with a search, which ranks the arms; remove it")
        return self


def with_absolute_places(document: Document, spec: StudySpec) -> Document:
    """Return the document with absolute paths, so that a study can be resumed from any folder."""
    paths: dict[str, object] = {}
    for name, settings in spec.data.items():
        root = getattr(settings, "root", None)
        if root is not None:
            paths[f"data.{name}.root"] = str(root)
        for part in ("test", "validation"):
            listed = getattr(settings.split, part)
            if isinstance(listed, FileList):
                paths[f"data.{name}.split.{part}.list"] = str(listed.list)
    return with_paths(document, paths) | {"compare": _with_absolute_files(document["compare"])}


def _with_absolute_files(value: Any) -> Any:  # noqa: ANN401 - raw document
    if isinstance(value, Mapping):
        if set(value) == {"file"}:
            return {"file": str(Path(str(value["file"])).absolute())}
        return {key: _with_absolute_files(inner) for key, inner in value.items()}
    return [_with_absolute_files(inner) for inner in value] if isinstance(value, list) else value
