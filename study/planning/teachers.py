"""Teachers of feature distillation in a plan."""

from collections.abc import Iterable
from pathlib import Path

from study.config.compare import InitialWeights, WeightsFile
from study.config.stages import FeatureDistillationStage, Stage, Teacher
from study.planning.arms import Arm


def teacher_of(settings: Stage) -> Teacher | None:
    """Return the teacher of a stage, None if its task has none."""
    return settings.teacher if isinstance(settings, FeatureDistillationStage) else None


def weights_by_backbone(arms: Iterable[Arm]) -> frozenset[tuple[str, InitialWeights]]:
    """Return the pairs of backbone and initial weights that arms and their teachers start from."""
    pairs: set[tuple[str, InitialWeights]] = set()
    for arm in arms:
        pairs.add((arm.chain[0].backbone, arm.initial_weights))
        teachers = (teacher_of(step.settings) for step in arm.chain)
        pairs |= {(teacher.backbone, teacher.initial_weights) for teacher in teachers if teacher is not None}
    return frozenset(pairs)


def weights_files(arms: Iterable[Arm]) -> frozenset[Path]:
    """Return the files of weights that arms and their teachers start from."""
    return frozenset(weights.file for _, weights in weights_by_backbone(arms) if isinstance(weights, WeightsFile))
