"""Check that the settings of evaluation fit the target stages and the classes of the target data."""

import re
from collections.abc import Iterable, Iterator

from datasets.source import Index
from datasets.targets import names as output_names
from models.catalog.registry import size_text
from results.metrics.thresholds import on_grid
from study.config.evaluation import Postprocess
from study.config.schema import StudySpec
from study.config.stages import MaskStage
from study.errors import Problem, unknown
from study.planning.arms import Arm, StageConfig
from study.planning.evaluation import EvaluationSettings

_SIDED = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
_MIRRORS = frozenset({"flip", "vertical_flip"})
"""Transforms after which an image is its mirror image, which no turn is."""


def evaluation_problems(spec: StudySpec, arms: Iterable[Arm], index: Index) -> Iterator[Problem]:
    """Yield settings of the evaluation that do not fit the target stages or the classes of the target data."""
    problems = {
        (problem.path, problem.message): problem
        for step in {id(arm.chain[-1]): arm.chain[-1] for arm in arms}.values()
        if isinstance(step.settings, MaskStage)
        for problem in (*_tta_problems(spec, step), *_postprocess_problems(spec, step, step.settings, index))
    }
    yield from problems.values()


def _tta_problems(spec: StudySpec, step: StageConfig) -> Iterator[Problem]:
    height, width = step.image.shape
    tta = EvaluationSettings.of(spec.evaluate, step.settings).tta
    if "rotate" in tta and height != width:
        message = (
            f"has rotate for inputs of {size_text(step.image.shape)} pixels; allowed: with square inputs; remove rotate"
        )
        yield Problem(path=_path(step, "tta"), message=message)


def _postprocess_problems(spec: StudySpec, step: StageConfig, stage: MaskStage, index: Index) -> Iterator[Problem]:
    settings: Postprocess = spec.evaluate.postprocess if stage.postprocess is None else stage.postprocess
    names, path = output_names(index, stage.target), _path(step, "postprocess")
    for name in settings.classes:
        if name not in names:
            yield Problem(path=path, message=unknown("class", name, names))
    by_class = [settings.of(name) for name in names]
    if not any(rule.empty for rule in by_class):
        return
    is_exclusive = stage.target == "mask" and not index.overlapping
    if is_exclusive and len(names) > 1:
        message = (
            f"has empty for {len(names)} classes that exclude each other, of which the most probable one is predicted; "
            "allowed: with one class, or with classes that overlap; remove empty, or use smallest_area"
        )
        yield Problem(path=path, message=message)
    threshold = EvaluationSettings.of(spec.evaluate, step.settings).threshold
    if any(rule.empty == "auto" for rule in by_class) and not on_grid(threshold):
        message = (
            f"has empty: auto with the threshold {threshold:g}; allowed: a threshold that is a multiple of 0.005; "
            "round the threshold"
        )
        yield Problem(path=path, message=message)


def _path(step: StageConfig, key: str) -> str:
    """Return where a setting of the evaluation of a stage is in the study file."""
    return f"evaluate.{key}" if getattr(step.settings, key, None) is None else f"stages.{step.stage}.{key}"


def mirror_warnings(spec: StudySpec, arms: Iterable[Arm], index: Index, target: str) -> Iterator[str]:
    """Yield stages that mirror images although classes of the target data depend on the side of the body."""
    sided = [name for name in index.classes if _SIDED.search(name.casefold())]
    remedies: dict[str, dict[str, str]] = {}
    for step in {id(step): step for arm in arms for step in arm.chain}.values():
        if step.settings.data == target and step.settings.target in ("mask", "box_mask", "centre", "box"):
            remedies.setdefault(step.stage, {}).update(_mirrors(spec, step))
    for stage, by_key in remedies.items() if sided else ():
        if by_key:
            yield (
                f"stages.{stage}: images are mirrored ({', '.join(by_key)}), but the classes {', '.join(sided)} depend "
                f"on the side; allowed: images that may be mirrored; set {' and '.join(by_key.values())}"
            )


def _mirrors(spec: StudySpec, step: StageConfig) -> Iterator[tuple[str, str]]:
    """Yield the settings by which a stage mirrors images, each with its remedy."""
    for key in sorted(_MIRRORS):
        if getattr(step.settings.augment, key):
            yield f"augment.{key}", f"augment.{key}: 0"
    if isinstance(step.settings, MaskStage) and _MIRRORS & {*EvaluationSettings.of(spec.evaluate, step.settings).tta}:
        yield "tta", "tta: []"
