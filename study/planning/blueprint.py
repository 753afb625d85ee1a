"""The network that a stage trains. Imports torch, so it is imported only to build networks."""

from datasets.settings import ImageSettings
from models.architectures.parts import EncoderHead
from models.build import Blueprint
from models.settings import head_of, is_deeply_supervised, upsampling_of
from models.task_settings.distillation import FeatureDistillationSettings
from models.task_settings.masking import MaskedReconstructionSettings
from models.task_settings.views import ViewSettings
from study.config.stages import Stage
from study.planning.arms import StageConfig


def blueprint(
    settings: Stage, image: ImageSettings, architecture: str | None, backbone: str, outputs: int
) -> Blueprint:
    """Return the network that a stage trains."""
    return Blueprint(
        architecture=architecture,
        backbone=backbone,
        channels=image.channels,
        outputs=outputs,
        skips=settings.task != "reconstruction",
        trains_decoder="decoder" in settings.trains,
        head=_encoder_head(settings),
        shape=image.shape,
        upsampling=upsampling_of(settings),
        deep_supervision=is_deeply_supervised(settings),
        head_width=_head_width(settings),
        head_depth=settings.decoder_depth if isinstance(settings, MaskedReconstructionSettings) else 0,
    )


def stage_blueprint(step: StageConfig, outputs: int = 1) -> Blueprint:
    """Return the network that a stage of a plan trains."""
    return blueprint(step.settings, step.image, step.architecture, step.backbone, outputs)


def _head_width(settings: Stage) -> int:
    if isinstance(settings, ViewSettings):
        return settings.hidden
    return settings.decoder_width if isinstance(settings, MaskedReconstructionSettings) else 0


def _encoder_head(settings: Stage) -> EncoderHead:
    """Return the head of a network without decoder."""
    if isinstance(settings, ViewSettings):
        return "projection"
    if isinstance(settings, MaskedReconstructionSettings):
        return "patches" if settings.method == "mae" else "pixels"
    if isinstance(settings, FeatureDistillationSettings):
        return "features"
    return head_of(settings)
