"""Arms: every combination the study compares, each with its resolved chain of stages."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from datasets.settings import ImageSettings
from study.config.compare import WeightsFile
from study.config.document import Document, set_path
from study.config.introspection import Location
from study.config.messages import dotted, faults, truth_values
from study.config.schema import Link, StudySpec
from study.config.stages import Stage, StageSettings
from study.errors import Problem

OWN = "own"
"""The backbone of architectures that bring their own encoder."""
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
    """None where only an encoder is trained that architectures share."""
    backbone: str


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared. `factors` hold the values as texts, in column order."""

    factors: Mapping[str, str]
    initial_weights: str | WeightsFile
    chain: tuple[StageConfig, ...]
    row: Mapping[str, Any]
    """The factors' values themselves."""

    @property
    def key(self) -> tuple[str, ...]:
        """Return the factor texts alone."""
        return tuple(self.factors.values())


def text_of(value: object) -> str:
    """Return how a factor's value is written in tables."""
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
    found: dict[tuple[str, ...], dict[str, object]] = {}

    def add(rows: Iterator[dict[str, object]], dropped: Sequence[Mapping[str, object]]) -> None:
        for row in rows:
            if not any(matches(row, rule) for rule in dropped):
                found.setdefault(tuple(text_of(value) for value in row.values()), row)

    add(_product(axes), compare.exclude)
    for extra in compare.include:
        add(_product({name: (extra[name],) if name in extra else axes[name] for name in axes}), ())
    return list(found.values())


def matches(row: Mapping[str, object], rule: Mapping[str, object]) -> bool:
    """Return whether a combination has every value that the rule names."""
    return all(name in row and text_of(row[name]) == text_of(value) for name, value in rule.items())


def _product(axes: Mapping[str, Sequence[object]]) -> Iterator[dict[str, object]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def evaluated_size(spec: StudySpec, arms: Iterable[Arm]) -> int:
    """Return the side in pixels at which all arms are scored: by default that of their largest target images."""
    return spec.evaluate.size or max((arm.chain[-1].image.size for arm in arms), default=0)


class Resolver:
    """Turns combinations into arms; equal steps become one object."""

    def __init__(self, spec: StudySpec) -> None:
        self.spec = spec
        self.problems: list[Problem] = []
        self._stages: dict[tuple[str, str], Stage | None] = {}
        self._images: dict[str, ImageSettings | None] = {}
        self._steps: dict[tuple[object, ...], StageConfig] = {}

    def arm(self, row: Mapping[str, Any], tried: Mapping[str, Any] | None = None) -> Arm | None:
        """Return the arm of one combination; None where a factor's value does not fit (see `problems`).

        `tried` are further values by path, of a search; those of stages that the arm lacks do nothing.
        """
        links = self.spec.pathways[row["pathway"]]
        changes = {path: row[path] for path in self.spec.compare.factors} | dict(tried or {})
        image = self._image({path: value for path, value in changes.items() if path.startswith("image.")})
        chain = []
        for position, link in enumerate(links):
            heads = (link.stage, "target") if position == len(links) - 1 else (link.stage,)
            own = {path: value for path, value in changes.items() if path.partition(".")[0] in heads}
            settings = self._settings(link.stage, own)
            if settings is None or image is None:
                return None
            chain.append(self._step(link, settings, image, row["architecture"], row["backbone"]))
        factors = {name: text_of(value) for name, value in row.items()}
        return Arm(factors=factors, initial_weights=row["initial_weights"], chain=tuple(chain), row=row)

    def _step(self, link: Link, settings: Stage, image: ImageSettings, architecture: str, backbone: str) -> StageConfig:
        encoder = settings.backbone or backbone
        needed = "decoder" in settings.trains or encoder == OWN
        own = (settings.architecture or architecture) if needed else None
        key = (id(link), id(settings), id(image), own, encoder)
        if key not in self._steps:
            self._steps[key] = StageConfig(
                stage=link.stage,
                settings=settings,
                image=settings.image.of(image, settings.prepare),
                link=link,
                architecture=own,
                backbone=encoder,
            )
        return self._steps[key]

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
            what = "; ".join(f"{dotted(place)} {message}" for place, message in truth_values(document, settings))
            if not what:
                return settings
        except ValidationError as error:
            found = faults(error, document, at=at)
            what = "; ".join(f"{dotted(fault.path[len(at) :])} {fault.message}" for fault in found)
        except ValueError as error:
            what = str(error)
        values = " with ".join(text_of(value) for value in changes.values())
        self.problems += [
            Problem(path=f"compare.{path}", message=f"value {values} does not fit: {what}") for path in changes
        ]
        return None
