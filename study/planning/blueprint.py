"""The network that a stage trains. Imports torch, so it is imported only to build networks."""

from datasets.settings import ImageSettings
from models.build import Blueprint
from models.settings import head_of, is_deeply_supervised, upsampling_of
from study.config.stages import Stage


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
        head=head_of(settings),
        shape=image.shape,
        upsampling=upsampling_of(settings),
        deep_supervision=is_deeply_supervised(settings),
    )
