"""Check that the teachers of feature distillation exist and that their weights fit."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from models.catalog import registry
from study.config.compare import WeightsFile
from study.config.stages import Teacher
from study.errors import Problem
from study.planning.arms import OWN, Arm, StageConfig
from study.planning.checks.file_checks import FileUse
from study.planning.teachers import teacher_of

if TYPE_CHECKING:
    from models.architectures.parts import Blueprint


def teacher_problems(arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield teachers that cannot be built for the images of their stage, and published weights that do not exist."""
    for step, teacher in _teachers(arms):
        problem = _network_problem(step, teacher)
        if problem is not None:
            yield problem
        elif not isinstance(teacher.initial_weights, WeightsFile):
            message = registry.weights_problem(teacher.backbone, teacher.initial_weights)
            if message is not None:
                yield Problem(path=f"stages.{step.stage}.teacher.initial_weights", message=message)


def teacher_files(arms: Iterable[Arm]) -> list[FileUse]:
    """Return the files from which teachers start, each once for a stage of the study file."""
    networks: dict[tuple[str, WeightsFile], dict[Blueprint, None]] = {}
    for step, teacher in _teachers(arms):
        if isinstance(teacher.initial_weights, WeightsFile) and _network_problem(step, teacher) is None:
            path = f"stages.{step.stage}.teacher.initial_weights"
            networks.setdefault((path, teacher.initial_weights), {})[_network(step, teacher)] = None
    return [FileUse(path=path, weights=weights, networks=tuple(used)) for (path, weights), used in networks.items()]


def _teachers(arms: Iterable[Arm]) -> Iterator[tuple[StageConfig, Teacher]]:
    """Yield each stage with a teacher once."""
    steps = {id(step): step for arm in arms for step in arm.chain}
    for step in steps.values():
        teacher = teacher_of(step.settings)
        if teacher is not None:
            yield step, teacher


def _network_problem(step: StageConfig, teacher: Teacher) -> Problem | None:
    path = f"stages.{step.stage}.teacher"
    if teacher.backbone == OWN:
        own = f"is {OWN}; allowed: a named backbone such as tu-vit_small_patch14_dinov2; name one"
        return Problem(path=f"{path}.backbone", message=own)
    shape = teacher.shape(step.image.shape)
    message = registry.problem(None, teacher.backbone, shape=shape)
    if message is None:
        return None
    if not message.startswith("image size is"):
        return Problem(path=f"{path}.backbone", message=message)
    _, allowed, _ = message.split("; ")
    size = f"is {registry.size_text(shape)} for {teacher.backbone}; {allowed}; set teacher.size"
    return Problem(path=f"{path}.size", message=size)


def _network(step: StageConfig, teacher: Teacher) -> "Blueprint":
    from models.tasks.feature_distillation import teacher_blueprint  # imports torch

    return teacher_blueprint(teacher, channels=step.image.channels)
