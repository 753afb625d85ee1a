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
        own = stage if isinstance(stage, MaskStage) else None
        postprocess = evaluate.postprocess if own is None or own.postprocess is None else own.postprocess
        by_class = {name: postprocess.of(name) for name in classes}
        return cls(
            threshold=evaluate.threshold if own is None or own.threshold is None else own.threshold,
            class_threshold=None if own is None else own.class_threshold,
            tta=_tta(evaluate, stage, own),
            postprocess=tuple((name, settings) for name, settings in by_class.items() if settings.has_effect),
        )


def _tta(evaluate: Evaluate, stage: Stage, own: MaskStage | None) -> tuple[TtaName, ...]:
    """Return the test-time augmentation: that of the stage, else of `evaluate`, else of the recipe."""
    if own is not None and own.tta is not None:
        return own.tta
    if evaluate.tta is not None:
        return evaluate.tta
    return () if stage.recipe is None else RECIPE_TTA[stage.recipe]
