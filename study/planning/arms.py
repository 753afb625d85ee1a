"""Arms: the factor combinations that a study compares, each with its resolved chain of stages."""

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from datasets.settings import NATIVE, AnnotationName, EvaluatedSize, ImageSettings, Size, shape_of
from datasets.source import AnnotationKind
from datasets.splits.weak_rows import ANNOTATION_OF
from datasets.targets import annotation_kind_of, annotation_name_of
from models.task_settings.weak_labels import weak_kind_of
from study.config.compare import RECIPE, REST, WeightsFile
from study.config.document import Document, set_path
from study.config.introspection import Location
from study.config.messages import dotted, faults, truth_values
from study.config.schema import Link, StudySpec
from study.config.stages import MaskStage, Stage, StageSettings
from study.errors import Problem

OWN = "own"
"""The backbone name of architectures with a built-in encoder."""
FIXED_FACTORS = ("architecture", "backbone", "initial_weights", "pathway")
_STAGE: TypeAdapter[Stage] = TypeAdapter(StageSettings)
_IMAGE: TypeAdapter[ImageSettings] = TypeAdapter(ImageSettings)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class StageConfig:
    """One stage of an arm's chain, with all overrides applied."""

    stage: str
    settings: Stage
    image: ImageSettings
    link: Link
    architecture: str | None
    """None for a stage that trains only an encoder, which several architectures can share."""
    backbone: str


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of the comparison. `factors` hold the values as text, in column order."""

    factors: Mapping[str, str]
    initial_weights: str | WeightsFile
    chain: tuple[StageConfig, ...]
    row: Mapping[str, Any]
    """The factor values before conversion to text."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return the factor values as text, in column order."""
        return tuple(self.factors.values())


def text_of(value: object) -> str:
    """Return the text of a factor value in tables."""
    if isinstance(value, WeightsFile):
        return value.file.name
    if isinstance(value, (Mapping, list, tuple)):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return str(value)


def assignments(spec: StudySpec) -> list[dict[str, object]]:
    """Return every combination of factor values: the grid less `exclude`, then `include`."""
    compare = spec.compare
    axes: dict[str, Sequence[object]] = {
        "architecture": compare.architecture,
        "backbone": compare.backbone,
        "initial_weights": compare.initial_weights,
        "pathway": compare.pathway or tuple(spec.pathways),
        **compare.factors,
    }
    rows_by_key: dict[tuple[str, ...], dict[str, object]] = {}

    def add(rows: Iterator[dict[str, object]], excluded: Sequence[Mapping[str, object]]) -> None:
        for row in rows:
            if not any(matches(row, rule) for rule in excluded):
                rows_by_key.setdefault(tuple(text_of(value) for value in row.values()), row)

    add(_product(axes), compare.exclude)
    for included in compare.include:
        add(_product({name: (included[name],) if name in included else axes[name] for name in axes}), ())
    return list(rows_by_key.values())


def matches(row: Mapping[str, object], rule: Mapping[str, object]) -> bool:
    """Return whether a combination has all values of a rule."""
    return all(name in row and text_of(row[name]) == text_of(value) for name, value in rule.items())


def _product(axes: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def evaluated_size(spec: StudySpec, arms: Iterable[Arm]) -> EvaluatedSize:
    """Return the size at which all arms are evaluated.

    Default: the size of each image if a target stage is trained on patches, else the largest target image size.
    """
    if spec.evaluate.size is not None:
        return spec.evaluate.size
    images = [arm.chain[-1].image for arm in arms]
    if any(image.fit == "patch" for image in images):
        return NATIVE
    return max((image.size for image in images), default=0, key=_area_and_shape)


def annotation_kinds_of(step: StageConfig) -> frozenset[AnnotationKind]:
    """Return the kinds of annotation of a data set that a stage reads, or may read as weak labels."""
    kind, weak = annotation_kind_of(step.settings.target), weak_kind_of(step.settings)
    return frozenset(({kind} if kind is not None else set()) | ({ANNOTATION_OF[weak]} if weak is not None else set()))


def annotation_read(arms: Iterable[Arm]) -> dict[str, dict[AnnotationName, str]]:
    """Return the kinds of annotation that arms read, by data set, each with the first stage that reads it."""
    read: dict[str, dict[AnnotationName, str]] = {}
    for step in {id(step): step for arm in arms for step in arm.chain}.values():
        kind = annotation_kind_of(step.settings.target)
        if kind is not None:
            read.setdefault(step.settings.data, {}).setdefault(annotation_name_of(kind), step.stage)
        weak = weak_kind_of(step.settings)
        if weak is not None:
            read.setdefault(step.settings.data, {}).setdefault(weak, step.stage)
    return read


def follows_rest(spec: StudySpec, stage: str, *, target: str) -> bool:
    """Return whether a factor `rest` sets that of a stage: of those that learn the masks of the target's data."""
    settings = spec.stages[stage]
    is_of_target = settings.data == spec.stages[target].data
    return isinstance(settings, MaskStage) and settings.target == "mask" and is_of_target


def _area_and_shape(size: Size) -> tuple[int, tuple[int, int]]:
    """Return the number of pixels, and height and width, by which sizes are ordered."""
    return math.prod(shape_of(size)), shape_of(size)


class Resolver:
    """Resolve factor combinations to arms; equal stages share one `StageConfig`."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.problems: list[Problem] = []
        self.refused: set[str] = set()
        """Names of the stages of combinations that are invalid."""
        self._stages: dict[tuple[str, str], Stage | None] = {}
        self._images: dict[str, ImageSettings | None] = {}
        self._configs: dict[tuple[object, ...], StageConfig] = {}

    def arm(self, row: Mapping[str, Any], tried: Mapping[str, Any] | None = None) -> Arm | None:
        """Return the arm of one combination; None if a factor value is invalid (added to `problems`).

        Args:
            row: value of every factor.
            tried: further values by path, from a search; those of stages that the arm lacks are ignored.
        """
        links = self.spec.pathways[row["pathway"]]
        changes = {path: row[path] for path in self.spec.compare.factors} | dict(tried or {})
        image = self._image({path: value for path, value in changes.items() if path.startswith("image.")})
        chain = []
        for position, link in enumerate(links):
            heads = (link.stage, "target") if position == len(links) - 1 else (link.stage,)
            stage_changes = {path: value for path, value in changes.items() if path.partition(".")[0] in heads}
            if RECIPE in changes and not self.spec.has_own_recipe(link.stage):
                stage_changes = {f"{link.stage}.{RECIPE}": changes[RECIPE]} | stage_changes
            if REST in changes and follows_rest(self.spec, link.stage, target=links[-1].stage):
                stage_changes = {f"{link.stage}.{REST}": changes[REST]} | stage_changes
            settings = self._settings(link.stage, stage_changes)
            if settings is None or image is None:
                self.refused.update(link.stage for link in links)
                return None
            chain.append(self._stage_config(link, settings, image, row["architecture"], row["backbone"]))
        factors = {name: text_of(value) for name, value in row.items()}
        return Arm(factors=factors, initial_weights=row["initial_weights"], chain=tuple(chain), row=row)

    def _stage_config(
        self, link: Link, settings: Stage, image: ImageSettings, architecture: str, backbone: str
    ) -> StageConfig:
        encoder = settings.backbone or backbone
        uses_architecture = "decoder" in settings.trains or encoder == OWN
        used_architecture = (settings.architecture or architecture) if uses_architecture else None
        key = (id(link), id(settings), id(image), used_architecture, encoder)
        if key not in self._configs:
            self._configs[key] = StageConfig(
                stage=link.stage,
                settings=settings,
                image=settings.image.of(image, settings.prepare),
                link=link,
                architecture=used_architecture,
                backbone=encoder,
            )
        return self._configs[key]

    def _settings(self, stage: str, changes: Mapping[str, object]) -> Stage | None:
        if not changes:
            return self.spec.stages[stage]
        key = (stage, repr(changes))
        if key not in self._stages:
            document = self.spec.stages[stage].model_dump(exclude_unset=True, by_alias=True)
            self._stages[key] = self._validated(document, changes, _STAGE, at=("stages", stage))
        return self._stages[key]

    def _image(self, changes: Mapping[str, object]) -> ImageSettings | None:
        key = repr(changes)
        if key not in self._images:
            self._images[key] = self._validated(self.spec.image.model_dump(), changes, _IMAGE, at=("image",))
        return self._images[key]

    def _validated(
        self, document: Document, changes: Mapping[str, object], adapter: TypeAdapter[T], at: Location
    ) -> T | None:
        try:
            for path, value in changes.items():
                set_path(document, path.partition(".")[2], copy.deepcopy(value))
            settings = adapter.validate_python(document)
            problem = "; ".join(
                f"{dotted(location)} {message}" for location, message in truth_values(document, settings)
            )
            if not problem:
                return settings
        except ValidationError as error:
            invalid = faults(error, document, at=at)
            problem = "; ".join(f"{dotted(fault.path[len(at) :])} {fault.message}".lstrip() for fault in invalid)
        except ValueError as error:
            problem = str(error)
        values = " with ".join(text_of(value) for value in changes.values())
        self.problems += [
            Problem(path=f"compare.{path}", message=f"value {values} does not fit: {problem}") for path in changes
        ]
        return None
