"""Resolved settings of the evaluation of a target stage."""

from collections.abc import Iterable
from typing import NamedTuple

from study.config.evaluation import ClassPostprocess, ClassThreshold, Evaluate, TtaName
from study.config.recipes import RECIPE_TTA
from study.config.stages import MaskStage, Stage


class EvaluationSettings(NamedTuple):
    """Settings of `evaluate` with what a stage and its recipe override."""

    threshold: float
    class_threshold: ClassThreshold | None
    tta: tuple[TtaName, ...]
    postprocess: tuple[tuple[str, ClassPostprocess], ...]
    """Post-processing by class, of those whose masks may change."""

    @classmethod
    def of(cls, evaluate: Evaluate, stage: Stage, classes: Iterable[str] = ()) -> "EvaluationSettings":
        """Return the settings of a stage that learns masks of some classes."""
        overrides = stage if isinstance(stage, MaskStage) else None
        threshold, postprocess = evaluate.threshold, evaluate.postprocess
        if overrides is not None:
            threshold = threshold if overrides.threshold is None else overrides.threshold
            postprocess = postprocess if overrides.postprocess is None else overrides.postprocess
        by_class = {name: postprocess.of(name) for name in classes}
        return cls(
            threshold=threshold,
            class_threshold=None if overrides is None else overrides.class_threshold,
            tta=_tta(evaluate, stage),
            postprocess=tuple((name, settings) for name, settings in by_class.items() if settings.has_effect),
        )


def _tta(evaluate: Evaluate, stage: Stage) -> tuple[TtaName, ...]:
    """Return the test-time augmentation: that of the stage, else of `evaluate`, else of the recipe."""
    if isinstance(stage, MaskStage) and stage.tta is not None:
        return stage.tta
    if evaluate.tta is not None:
        return evaluate.tta
    return () if stage.recipe is None else RECIPE_TTA[stage.recipe]
