"""Settings of tasks, losses and optimisation as a study file spells them. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LossName = Literal[
    "cross_entropy",
    "boundary_cross_entropy",
    "binary_cross_entropy",
    "dice",
    "log_dice",
    "focal",
    "jaccard",
    "tversky",
    "mse",
    "l1",
]
LossWeights = Mapping[LossName, Annotated[float, Field(ge=0)]]
Part = Literal["encoder", "decoder", "head"]
Head = Literal["average", "flatten"]
Upsampling = Literal["nearest", "bilinear", "transposed", "unpool"]
TargetKind = Literal["image", "labels", "centre", "box", "mask", "box_mask"]
Pool = Literal["hidden", "all"]
"""Of images without masks: those whose masks the labelled amount hides, or also those that never had any."""

_OF_EXCLUSIVE: tuple[LossName, ...] = ("cross_entropy", "boundary_cross_entropy")
_OF_VALUES: tuple[LossName, ...] = ("mse", "l1")
_OF_MASKS: tuple[LossName, ...] = (
    *_OF_EXCLUSIVE,
    "binary_cross_entropy",
    "dice",
    "log_dice",
    "focal",
    "jaccard",
    "tversky",
)
losses_of: Mapping[TargetKind, tuple[LossName, ...]] = {
    "image": _OF_VALUES,
    "labels": ("binary_cross_entropy", "focal"),
    "centre": _OF_VALUES,
    "box": _OF_VALUES,
    "mask": _OF_MASKS,
    "box_mask": _OF_MASKS,
}


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerSettings(Settings):
    """`momentum` is read by sgd and rmsprop only."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ScheduleSettings(Settings):
    """Learning rate over time. cosine and poly run over all updates; plateau watches the validation loss."""

    name: Literal["none", "cosine", "plateau", "poly"] = "none"
    power: Annotated[float, Field(gt=0)] = 0.9
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    patience: Annotated[int, Field(ge=1, le=10**6)] = 5


class TaskSettings(Settings):
    """What every task shares. A loss of several terms is their weighted sum."""

    trains: ClassVar[tuple[Part, ...]] = ("encoder", "decoder")
    """The parts a stage of this task trains beside its head; only these can be carried on."""
    task: str
    loss: LossWeights

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not any(self.loss.values()):
            raise ValueError("every weight of the loss is 0; allowed: at least one weight above 0; raise one")
        return self


class ReconstructionSettings(TaskSettings):
    """Autoencoder. `corrupt` adds Gaussian noise of that standard deviation (0..1 range) to the input."""

    target: ClassVar[Literal["image"]] = "image"
    task: Literal["reconstruction"] = "reconstruction"
    loss: LossWeights = {"mse": 1.0}
    corrupt: Annotated[float, Field(ge=0, le=1)] = 0.0
    upsampling: Upsampling | None = None
    """How the decoder doubles the size of its maps; None: as its architecture was published."""


class ClassificationSettings(TaskSettings):
    """Multi-label image classification; uncertain labels (NaN) count neither in loss nor in score."""

    trains: ClassVar[tuple[Part, ...]] = ("encoder",)
    target: ClassVar[Literal["labels"]] = "labels"
    task: Literal["classification"] = "classification"
    loss: LossWeights = {"binary_cross_entropy": 1.0}
    head: Head = "average"
    """What the linear layer reads: the average of the deepest feature map, or all of it, position by position."""


class LocalisationSettings(TaskSettings):
    """Regression of a structure's centre (x, y) or box (x, y, width, height), each in 0..1 of the image."""

    trains: ClassVar[tuple[Part, ...]] = ("encoder",)
    task: Literal["localisation"] = "localisation"
    loss: LossWeights = {"mse": 1.0}
    target: Literal["centre", "box"] = "centre"
    head: Head = "average"
    """As for classification; `flatten` is that of Hu et al."""
    structure: str | None = None
    """Which structure; may be left out where the data has one only."""


class MaskSettings(TaskSettings):
    """What tasks of masks share. `class_weights` by class name, default 1."""

    loss: LossWeights = {"binary_cross_entropy": 1.0, "dice": 1.0}
    target: Literal["mask", "box_mask"] = "mask"
    class_weights: Mapping[str, Annotated[float, Field(ge=0)]] = {}
    upsampling: Upsampling | None = None
    """How the decoder doubles the size of its maps; None: as its architecture was published."""


class DiscriminatorSettings(Settings):
    """Judge of label maps: of patches (Isola et al. 2017) or of each pixel (Hung et al. 2018).

    `receptive_field` is the side of patchgan's patches in pixels. `conditional` shows it the image too.
    """

    name: Literal["patchgan", "fully_convolutional"]
    receptive_field: Literal[16, 70, 256] = 70
    conditional: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name != "patchgan" and self.receptive_field != 70:
            found = f"receptive_field is {self.receptive_field} under {self.name}"
            raise ValueError(f"{found}; allowed: under patchgan only; leave it out")
        return self


class SegmentationSettings(MaskSettings):
    """Masks. `target: box_mask` fills boxes and learns those."""

    task: Literal["segmentation"] = "segmentation"


class DiscriminatorOptimizerSettings(OptimizerSettings):
    """As Hung et al. (2018) train theirs, unless said otherwise."""

    lr: Annotated[float, Field(gt=0)] = 1e-4


class AdversaryBlock(Settings):
    """The discriminator's part in semi-supervised segmentation (Hung et al. 2018, whose values are the defaults).

    `lambda1` weighs the adversarial loss of labelled images, `lambda2` that of unlabelled ones, `lambda_semi`
    self-training on pixels of unlabelled images that the discriminator holds for true with more than `t_semi`,
    from the update `semi_start` on. `unlabelled` says which of the target's images these are.
    """

    unlabelled: Pool = "hidden"
    discriminator: DiscriminatorSettings = DiscriminatorSettings(name="fully_convolutional")
    optimizer: DiscriminatorOptimizerSettings = DiscriminatorOptimizerSettings()
    lambda1: Annotated[float, Field(ge=0)] = 0.01
    lambda2: Annotated[float, Field(ge=0)] = 0.001
    lambda_semi: Annotated[float, Field(ge=0)] = 0.0
    t_semi: Annotated[float, Field(ge=0, le=1)] = 0.2
    semi_start: Annotated[int, Field(ge=0, le=10**9)] = 5000


class AdversarialSettings(MaskSettings):
    """Segmentation that also learns from images without masks, against a discriminator of label maps."""

    task: Literal["adversarial"] = "adversarial"
    target: Literal["mask"] = "mask"
    adversarial: AdversaryBlock = AdversaryBlock()


def head_of(settings: TaskSettings) -> Head:
    """Return the head of a network that gives one answer an image."""
    return settings.head if isinstance(settings, ClassificationSettings | LocalisationSettings) else "average"


def upsampling_of(settings: TaskSettings) -> Upsampling | None:
    """Return how a decoder is to double its maps, None where nothing is said."""
    return settings.upsampling if isinstance(settings, MaskSettings | ReconstructionSettings) else None


def pool_of(settings: TaskSettings) -> Pool | None:
    """Return which images without masks a task learns from too."""
    return settings.adversarial.unlabelled if isinstance(settings, AdversarialSettings) else None


def structure_of(settings: TaskSettings) -> str | None:
    """Return the structure that is localised, None where none is named."""
    return settings.structure if isinstance(settings, LocalisationSettings) else None


def loss_problem(losses: Iterable[LossName], target: TargetKind, *, exclusive: bool) -> str | None:
    """Say in one line why such a target cannot be learned with these losses; None where it can."""
    allowed = [name for name in losses_of[target] if exclusive or name not in _OF_EXCLUSIVE]
    wrong = [name for name in losses if name not in allowed]
    if not wrong:
        return None
    classes = {"mask": " of exclusive classes" if exclusive else " of overlapping classes"}.get(target, "")
    remedy = "take binary_cross_entropy" if set(wrong) <= set(_OF_EXCLUSIVE) else "choose one of these"
    return f"loss {', '.join(wrong)} does not fit {target}{classes}; allowed: {', '.join(allowed)}; {remedy}"


def class_weights_problem(weights: Mapping[str, float], classes: Iterable[str], *, exclusive: bool) -> str | None:
    """Say in one line what is wrong with weights by class name; None where nothing is.

    Exclusive classes have a weight for "background" too.
    """
    foreground = tuple(classes)
    allowed = ("background", *foreground) if exclusive else foreground
    unknown = [name for name in weights if name not in allowed]
    if unknown:
        return f"unknown class {', '.join(unknown)}; allowed: {', '.join(allowed)}; correct the name"
    if not any(weights.get(name, 1.0) for name in foreground):
        return "every class weight is 0; allowed: at least one foreground class above 0; raise one"
    return None
