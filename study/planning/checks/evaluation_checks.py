"""Check that the settings of evaluation fit the target stages and the classes of the target data."""

import re
from collections.abc import Iterable, Iterator

from datasets.source import Index
from datasets.targets import names as output_names
from models.catalog.registry import size_text
from study.config.schema import StudySpec
from study.config.stages import MaskStage
from study.errors import Problem, unknown
from study.planning.arms import Arm, StageConfig
from study.planning.evaluation import EvaluationSettings

_SIDED = re.compile(r"(?<![a-z])(left|right)(?![a-z])")
_MIRRORS = frozenset({"flip", "vertical_flip"})


def evaluation_problems(spec: StudySpec, arms: Iterable[Arm], index: Index) -> Iterator[Problem]:
    """Yield settings of the evaluation that do not fit the target stages or the classes of the target data."""
    problems = {
        (problem.path, problem.message): problem
        for step in {id(arm.chain[-1]): arm.chain[-1] for arm in arms}.values()
        if isinstance(step.settings, MaskStage)
        for problem in (*_tta_problems(spec, step), *_postprocess_problems(spec, step, index))
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


def _postprocess_problems(spec: StudySpec, step: StageConfig, index: Index) -> Iterator[Problem]:
    settings = EvaluationSettings.of(spec.evaluate, step.settings).postprocess
    names = output_names(index, step.settings.target)
    path = _path(step, "postprocess")
    for name in settings.classes:
        if name not in names:
            yield Problem(path=path, message=unknown("class", name, names))
    is_exclusive = step.settings.target == "mask" and not index.overlapping
    if is_exclusive and len(names) > 1 and settings.empty is not None:
        message = (
            f"has empty for {len(names)} classes that exclude each other, of which the most probable one is predicted; "
            "allowed: with one class, or with classes that overlap; remove empty, or use smallest_area"
        )
        yield Problem(path=path, message=message)


def _path(step: StageConfig, key: str) -> str:
    """Return where a setting of the evaluation of a stage is in the study file."""
    return f"evaluate.{key}" if getattr(step.settings, key, None) is None else f"stages.{step.stage}.{key}"


def mirror_warnings(spec: StudySpec, arms: Iterable[Arm], index: Index, target: str) -> Iterator[str]:
    """Yield stages that mirror images although classes of the target data depend on the side of the body."""
    sided = [name for name in index.classes if _SIDED.search(name.casefold())]
    steps = {step.stage: step for arm in arms for step in arm.chain if step.settings.data == target}
    for name, step in steps.items() if sided else ():
        keys = [*_mirrored_by(spec, step)]
        if keys and step.settings.target in ("mask", "box_mask", "centre", "box"):
            yield (
                f"stages.{name}: {' and '.join(keys)} mirror images, but the classes {', '.join(sided)} depend on the "
                "side; allowed: images that may be mirrored; set augment.flip: 0 and tta: []"
            )


def _mirrored_by(spec: StudySpec, step: StageConfig) -> Iterator[str]:
    """Yield the settings by which a stage mirrors images."""
    if step.settings.augment.flip:
        yield "augment.flip"
    if isinstance(step.settings, MaskStage) and _MIRRORS & {*EvaluationSettings.of(spec.evaluate, step.settings).tta}:
        yield "tta"
