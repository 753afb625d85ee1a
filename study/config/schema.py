"""The schema of a study file. `study.planning.checks` follow references, `study.planning.dataset_view` opens data."""

import math
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from datasets.settings import FileList, ImageSettings
from datasets.sources import DataSettings
from models.settings import Part
from study.config.compare import Compare, Rule, fixed_rule
from study.config.document import Document, with_paths
from study.config.fields import Count, Machines, Name, Settings, each_once
from study.config.search import Search
from study.config.stages import StageSettings

MAX_REPLICATES = 200_000
"""Arms x amounts of labels x folds x seeds."""
FreezeName = Literal[
    "encoder", "decoder", "encoder.stage1", "encoder.stage2", "encoder.stage3", "encoder.stage4", "encoder.stage5"
]


class Link(Settings):
    """One step of a pathway: a stage, and what it takes over from the one before it."""

    stage: str
    carry: Literal["encoder", "encoder+decoder", "encoder+decoder+head"] = "encoder"
    freeze: tuple[FreezeName, ...] = ()
    unfreeze_after: Count | None = None

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
        parts: tuple[Part, ...] = ("encoder", "decoder", "head")
        return parts[: self.carry.count("+") + 1]


class Validation(Settings):
    """Below `min_cases` validation images nothing validates."""

    min_cases: Count = 5


class Evaluate(Settings):
    """How target stages are scored. `size` defaults to the largest target `image.size`."""

    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Metrics(Settings):
    """Which classes the means run over."""

    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    background: bool = False
    min_images: Count = 1

    _each_once = field_validator("classes")(each_once)


class Keep(Settings):
    """Whose weights stay on disk."""

    weights: Literal["parents+best", "all", "none"] = "parents+best"


class Resources(Settings):
    """What one stage may use."""

    cpus: Machines = 1
    gpus: Literal["auto"] | Annotated[float, Field(ge=0, le=4096)] = "auto"
    workers: Machines = 1
    """Processes that share each batch of a stage; `cpus` and `gpus` are those of one."""
    compile: bool = False
    """Let torch compile networks first: minutes at the start of a stage, faster updates on a GPU."""
    pack: bool = False
    """Give a stage the share of a GPU that the memory of one of its shape implies, instead of `gpus`."""

    @model_validator(mode="after")
    def _packs_what_shares(self) -> Self:
        if self.pack and (self.workers > 1 or self.gpus not in ("auto", 1)):
            found = f"pack with workers {self.workers} and gpus {self.gpus}"
            raise ValueError(f"{found}; allowed: with workers 1 and gpus auto or 1; leave these out, or pack")
        return self

    @model_validator(mode="after")
    def _workers_have_whole_gpus(self) -> Self:
        if self.workers > 1 and self.gpus != "auto" and self.gpus != int(self.gpus):
            raise ValueError(
                f"gpus {self.gpus} with workers {self.workers}; allowed: with several workers auto or a whole number, "
                "for two of them cannot speak to each other through one GPU; set gpus: 1, or workers: 1"
            )
        return self

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, value: Literal["auto"] | float) -> Literal["auto"] | float:
        if value != "auto" and value > 1 and value != int(value):
            raise ValueError(f"is {value}; allowed: auto, a share up to 1, or a whole number; round it")
        return value


class Checkpoint(Settings):
    """A running stage can be resumed from every `epochs`-th epoch, at most one in `seconds`."""

    epochs: Count = 1
    seconds: Annotated[float, Field(ge=0)] = 20.0


class Tracking(Settings):
    """Where every stage is also logged as a run; never part of a digest."""

    tensorboard: bool = False
    mlflow: str | None = None

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        place = urlsplit(value or "")
        if "@" in place.netloc or "password" in place.query.lower() or "token" in place.query.lower():
            raise ValueError(
                "has a user or a password in it, which would be kept with the study; allowed: an address without; set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where the study is started"
            )
        return value


class PublishedValue(Settings):
    """One value and the cells it belongs beside; what `match` leaves out may be anything."""

    value: Annotated[float, Field(allow_inf_nan=False)]
    match: Annotated[Rule, AfterValidator(fixed_rule)] = Field(default_factory=dict)


class Published(Settings):
    """Values of one metric that a paper reports, for `study table --published`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    source: str
    metric: str = "mean_iou"
    class_: str = Field(default="macro", alias="class")
    aggregation: Literal["dataset", "case"] = "dataset"
    values: Annotated[tuple[PublishedValue, ...], Field(min_length=1)]


PUBLISHED: TypeAdapter[tuple[Published, ...]] = TypeAdapter(tuple[Published, ...])


class StudySpec(Settings):
    """A whole study file."""

    name: Name
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

    @model_validator(mode="after")
    def _few_replicates(self) -> Self:
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
    def _top_of_searched(self) -> Self:
        if self.compare.top is not None and self.search is None:
            found = f"compare.top is {self.compare.top} without search"
            raise ValueError(f"{found}; allowed: with a search, which ranks the arms; remove it")
        return self


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
