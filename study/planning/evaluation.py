"""Resolved settings of the evaluation of a target stage."""

from typing import NamedTuple

from study.config.evaluation import ClassThreshold, Evaluate, Postprocess, TtaName
from study.config.stages import MaskStage, Stage


class EvaluationSettings(NamedTuple):
    """Settings of `evaluate` with what a stage overrides."""

    threshold: float
    class_threshold: ClassThreshold | None
    tta: tuple[TtaName, ...]
    postprocess: Postprocess

    @classmethod
    def of(cls, evaluate: Evaluate, stage: Stage) -> "EvaluationSettings":
        """Return the settings of a stage."""
        if not isinstance(stage, MaskStage):
            return cls(evaluate.threshold, None, evaluate.tta, evaluate.postprocess)
        return cls(
            threshold=evaluate.threshold if stage.threshold is None else stage.threshold,
            class_threshold=stage.class_threshold,
            tta=evaluate.tta if stage.tta is None else stage.tta,
            postprocess=evaluate.postprocess if stage.postprocess is None else stage.postprocess,
        )
