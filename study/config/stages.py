"""Stages as a study file spells them: what is learned from which data, and how."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from datasets.settings import AugmentSettings, ImageSettings, PrepareSettings
from models.settings import (
    AdversarialSettings,
    ClassificationSettings,
    LocalisationSettings,
    MaskSettings,
    OptimizerSettings,
    ReconstructionSettings,
    ScheduleSettings,
    SegmentationSettings,
)
from study.config.fields import Count, Positive, Seed, Settings


class ImageOverride(Settings):
    """What a stage changes of the study's `image`."""

    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    channels: Literal[1, 3] | None = None
    fit: Literal["stretch", "letterbox"] | None = None

    def of(self, image: ImageSettings, prepare: PrepareSettings | None) -> ImageSettings:
        """Return the study's image settings with what a stage changes."""
        changes = {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}
        return image.model_copy(update=changes | ({"prepare": prepare} if prepare is not None else {}))


class EarlyStopping(Settings):
    """Stop when the monitored score has not improved by `min_delta` for `patience` epochs."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class WeightAverage(Settings):
    """Stochastic weight averaging over the epochs after the share `start` of all; it takes the best epoch's place."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.75


class Balance(Settings):
    """An epoch of about `images` training images, every category as often; repeated images are augmented anew.

    No image is left out: an epoch is longer where a category has more than its share.
    """

    images: Count


class StageBase(Settings):
    """What every stage may say. One epoch is one pass over its training images."""

    data: str
    epochs: Count | None = None
    steps: Positive | None = None
    batch_size: Count = 8
    accumulate: Count = 1
    """Into how many parts a batch is split, whose gradients add up: less memory, batch norm over a part."""
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    average: WeightAverage | None = None
    balance: Balance | None = None
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Added to the loss: this x the sum of squares of every convolution kernel that trains."""
    augment: AugmentSettings = AugmentSettings()
    precision: Literal["float32", "bf16"] = "float32"
    seed: Seed | None = None
    architecture: str | None = None
    backbone: str | None = None
    image: ImageOverride = ImageOverride()
    prepare: PrepareSettings | None = None
    """In place of the study's `image.prepare`."""

    @model_validator(mode="after")
    def _some_image_a_part(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate} of batches of {self.batch_size}; allowed: at least one image a "
                "part; lower accumulate or raise batch_size"
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            given = "both are given" if self.epochs else "neither is given"
            raise ValueError(
                f"epochs or steps: {given}; allowed: exactly one; `steps` gives every fraction equally many updates"
            )
        return self


class ReconstructionStage(StageBase, ReconstructionSettings):
    """An autoencoder stage."""


class ClassificationStage(StageBase, ClassificationSettings):
    """An image classification stage."""


class LocalisationStage(StageBase, LocalisationSettings):
    """A centre or box regression stage."""


class ClassThreshold(Settings):
    """One class counts only from a higher probability on; the likeliest other class takes what falls below.

    The probability is the smallest, in steps of 0.005, at which at most the share `false_positive_rate` of the
    other pixels of the validation images is taken for the class. Scores with it stand beside those without, under
    the splits test_thresholded and validation_thresholded.
    """

    class_: str = Field(alias="class")
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]


class MaskStage(StageBase, MaskSettings):
    """A stage that learns masks. `threshold` replaces `evaluate.threshold` when it is scored."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    class_threshold: ClassThreshold | None = None


class SegmentationStage(SegmentationSettings, MaskStage):
    """A segmentation stage."""


class AdversarialStage(AdversarialSettings, MaskStage):
    """A stage of semi-supervised segmentation."""

    accumulate: Literal[1] = 1
    """Both players of a batch answer to the same maps, which would be kept for all parts."""


Stage = ReconstructionStage | ClassificationStage | LocalisationStage | SegmentationStage | AdversarialStage
StageSettings = Annotated[Stage, Field(discriminator="task")]
