"""Settings of tasks, losses and optimisation, as written in a study file. Does not import torch."""

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
    "focal_tversky",
    "cldice",
    "boundary",
    "mse",
    "l1",
]
LossWeights = Mapping[LossName, Annotated[float, Field(ge=0)]]
DecayRate = Annotated[float, Field(ge=0, lt=1)]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
NetworkPart = Literal["encoder", "decoder", "head"]
HeadName = Literal["average", "flatten"]
Upsampling = Literal["nearest", "bilinear", "transposed", "unpool"]
TargetKind = Literal["image", "labels", "centre", "box", "mask", "box_mask"]
Pool = Literal["hidden", "all"]
"""Images without masks: only those whose masks are hidden by the labelled fraction, or all."""

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
    "focal_tversky",
    "cldice",
    "boundary",
)
_SMOOTHED: tuple[LossName, ...] = ("cross_entropy", "binary_cross_entropy")
"""Losses with `label_smoothing`."""
soft_losses: tuple[LossName, ...] = (
    "cross_entropy",
    "binary_cross_entropy",
    "dice",
    "log_dice",
    "jaccard",
    "tversky",
    "focal_tversky",
)
"""Losses of masks that can be computed against probabilities."""
whole_mask_losses: tuple[LossName, ...] = ("boundary", "cldice")
"""Losses that need complete masks, as they measure distances to borders or centre lines."""
losses_of: Mapping[TargetKind, tuple[LossName, ...]] = {
    "image": _OF_VALUES,
    "labels": ("binary_cross_entropy", "focal"),
    "centre": _OF_VALUES,
    "box": _OF_VALUES,
    "mask": _OF_MASKS,
    "box_mask": _OF_MASKS,
}


class BaseModelSettings(BaseModel):
    """Base class of settings: frozen, unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OptimizerSettings(BaseModelSettings):
    """Settings of the optimizer; `momentum` applies to sgd and rmsprop only, `betas` to adam and adamw.

    `alpha` is the decay rate of rmsprop's mean of squared gradients; 0.9 in Tieleman and Hinton (2012) and in Keras.
    """

    name: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    betas: tuple[DecayRate, DecayRate] = (0.9, 0.999)

    @model_validator(mode="after")
    def _check_betas(self) -> Self:
        if self.betas != (0.9, 0.999) and self.name not in ("adam", "adamw"):
            raise ValueError(
                f"betas is {list(self.betas)} under {self.name}; allowed: with adam or adamw; remove it, or choose one"
            )
        return self


class NetworkOptimizerSettings(OptimizerSettings):
    """Settings of the optimizer of a network with an encoder.

    The learning rate of the encoder is multiplied by `encoder_lr_factor`, and in each layer by `layer_decay` once more
    than in the next deeper one.
    """

    encoder_lr_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def is_uniform(self) -> bool:
        """Whether all layers have the same learning rate."""
        return self.encoder_lr_factor == 1 and self.layer_decay == 1


class ScheduleSettings(BaseModelSettings):
    """Learning-rate schedule. cosine and poly run over all updates; plateau monitors the validation loss.

    In the first `warmup` of all updates, a fraction, the rate increases linearly to that of the optimizer.
    """

    name: Literal["none", "cosine", "plateau", "poly"] = "none"
    power: Annotated[float, Field(gt=0)] = 0.9
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    patience: Annotated[int, Field(ge=1, le=10**6)] = 5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup and self.name == "plateau":
            raise ValueError(
                f"warmup is {self.warmup:g} under plateau; allowed: 0; remove it, or choose cosine, poly or none"
            )
        return self


class LoraSettings(BaseModelSettings):
    """Low-rank adapters (Hu et al. 2022) of the encoder.

    Attributes:
        rank: Number of columns of the two matrices of an adapter.
        alpha: The product of the matrices is multiplied by alpha / rank.
        targets: Layers that get adapters, by their names or the ends of them, such as qkv, attn.proj, fc1. None: the
            projections to queries, keys and values; in an encoder without attention all linear layers and convolutions
            without groups.
    """

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: tuple[str, ...] = ()


Adapt = Literal["full", "norm", "bias", "lora"] | LoraSettings
"""Which part of the encoder is trained."""


class TaskSettings(BaseModelSettings):
    """Settings of every task."""

    task: str

    @property
    def trains(self) -> tuple[NetworkPart, ...]:
        """Return the parts trained in addition to the head; only these can be carried to the next stage."""
        return ("encoder", "decoder")


class LossSettings(TaskSettings):
    """Settings of tasks with a choice of losses. A loss with several terms is their weighted sum."""

    loss: LossWeights

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not any(self.loss.values()):
            raise ValueError("every weight of the loss is 0; allowed: at least one weight above 0; raise one")
        smoothing = label_smoothing_of(self)
        if smoothing and not any(self.loss.get(name) for name in _SMOOTHED):
            allowed = " or ".join(_SMOOTHED)
            raise ValueError(
                f"label_smoothing is {smoothing:g} with the loss {', '.join(self.loss)}; allowed: with {allowed}; "
                "remove it, or add one of these"
            )
        return self


class ReconstructionSettings(LossSettings):
    """Autoencoder. `corrupt` is the standard deviation of Gaussian noise added to the input (values 0..1)."""

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder", "decoder")
    target: ClassVar[Literal["image"]] = "image"
    task: Literal["reconstruction"] = "reconstruction"
    loss: LossWeights = {"mse": 1.0}
    corrupt: Annotated[float, Field(ge=0, le=1)] = 0.0
    upsampling: Upsampling | None = None
    """Upsampling method of the decoder; None: as published."""


class ClassificationSettings(LossSettings):
    """Multi-label image classification; uncertain labels (NaN) are ignored by loss and scores."""

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder",)
    target: ClassVar[Literal["labels"]] = "labels"
    task: Literal["classification"] = "classification"
    loss: LossWeights = {"binary_cross_entropy": 1.0}
    label_smoothing: Smoothing = 0.0
    """As for segmentation."""
    head: HeadName = "average"
    """Input of the linear layer: the average of the deepest feature map, or the flattened map."""


class LocalisationSettings(LossSettings):
    """Regression of the centre (x, y) or box (x, y, width, height) of a structure, in 0..1 of the image."""

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder",)
    task: Literal["localisation"] = "localisation"
    loss: LossWeights = {"mse": 1.0}
    target: Literal["centre", "box"] = "centre"
    head: HeadName = "average"
    """As for classification; `flatten` is that of Hu et al."""
    structure: str | None = None
    """The structure; optional if the data has only one."""


class MaskSettings(LossSettings):
    """Settings of tasks with masks.

    `class_weights` by class name, default 1, or `balanced`: inversely proportional to the number of pixels of each
    class in the training masks, with a mean of 1. `label_smoothing` mixes this share of the uniform distribution into
    the truth of cross-entropies in training (Szegedy et al. 2016). With `deep_supervision` the decoder's maps at 1/2 to
    1/8 of the resolution have a loss of their own in training.
    """

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder", "decoder")
    loss: LossWeights = {"binary_cross_entropy": 1.0, "dice": 1.0}
    target: Literal["mask", "box_mask"] = "mask"
    class_weights: Mapping[str, Annotated[float, Field(ge=0)]] | Literal["balanced"] = {}
    label_smoothing: Smoothing = 0.0
    deep_supervision: bool = False
    upsampling: Upsampling | None = None
    """Upsampling method of the decoder; None: as published."""

    @property
    def pool(self) -> Pool | None:
        """Return which images without masks are used, None if none are."""
        return None


class DiscriminatorSettings(BaseModelSettings):
    """Discriminator of label maps, per patch (Isola et al. 2017) or per pixel (Hung et al. 2018).

    `receptive_field` is the side of patchgan's patches in pixels. `conditional` adds the image to its input.
    """

    name: Literal["patchgan", "fully_convolutional"]
    receptive_field: Literal[16, 70, 256] = 70
    conditional: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name != "patchgan" and self.receptive_field != 70:
            value = f"receptive_field is {self.receptive_field} under {self.name}"
            raise ValueError(f"{value}; allowed: under patchgan only; leave it out")
        return self


class SegmentationSettings(MaskSettings):
    """Segmentation of masks; `target: box_mask` uses filled boxes as masks."""

    task: Literal["segmentation"] = "segmentation"


class DiscriminatorOptimizerSettings(OptimizerSettings):
    """Settings of the optimizer of the discriminator; defaults of Hung et al. (2018)."""

    lr: Annotated[float, Field(gt=0)] = 1e-4


class AdversaryBlock(BaseModelSettings):
    """Settings of adversarial semi-supervised segmentation; defaults of Hung et al. (2018).

    `lambda1` weighs the adversarial loss of labelled images, `lambda2` that of unlabelled ones, `lambda_semi`
    self-training on pixels of unlabelled images with a discriminator output above `t_semi`, from update
    `semi_start` on. `unlabelled` selects the unlabelled images, which are used from update `unlabelled_start` on.
    From then on `freeze_discriminator` fixes the discriminator, and `unlabelled_only` leaves out the labelled images.
    Without unlabelled images these three have no effect.
    """

    unlabelled: Pool = "hidden"
    discriminator: DiscriminatorSettings = DiscriminatorSettings(name="fully_convolutional")
    optimizer: DiscriminatorOptimizerSettings = DiscriminatorOptimizerSettings()
    lambda1: Annotated[float, Field(ge=0)] = 0.01
    lambda2: Annotated[float, Field(ge=0)] = 0.001
    lambda_semi: Annotated[float, Field(ge=0)] = 0.0
    t_semi: Annotated[float, Field(ge=0, le=1)] = 0.2
    semi_start: Annotated[int, Field(ge=0, le=10**9)] = 5000
    unlabelled_start: Annotated[int, Field(ge=0, le=10**9)] = 0
    freeze_discriminator: bool = False
    unlabelled_only: bool = False

    @model_validator(mode="after")
    def _check_second_phase(self) -> Self:
        if self.freeze_discriminator and not self.unlabelled_start:
            raise ValueError(
                "freeze_discriminator is true with unlabelled_start 0, which fixes a random discriminator; allowed: "
                "with unlabelled_start 1 or more; raise unlabelled_start"
            )
        if self.unlabelled_only and not self.freeze_discriminator:
            raise ValueError(
                "unlabelled_only is true with freeze_discriminator false, but a discriminator learns from masks; "
                "allowed: with freeze_discriminator: true; set it"
            )
        if self.unlabelled_only and not self.lambda2:
            raise ValueError(
                "lambda2 is 0 with unlabelled_only, which leaves updates without a loss; allowed: above 0; raise it"
            )
        return self

    def uses_unlabelled(self, update: int) -> bool:
        """Return whether images without masks contribute to the loss at an update."""
        return update >= self.unlabelled_start and (self.lambda2 > 0 or self.self_trains(update))

    def self_trains(self, update: int) -> bool:
        """Return whether self-training contributes to the loss of images without masks at an update."""
        return self.lambda_semi > 0 and update >= self.semi_start


class SemiSupervisedSettings(MaskSettings):
    """Settings of segmentation that also learns from images without masks."""

    target: Literal["mask"] = "mask"
    deep_supervision: Literal[False] = False
    """Not implemented: images without masks have a loss of the final maps alone."""

    @property
    def pool(self) -> Pool:
        """Return which images without masks are used."""
        raise NotImplementedError

    @property
    def unlabelled_start(self) -> int:
        """Return the update from which on images without masks are used."""
        return 0


class AdversarialSettings(SemiSupervisedSettings):
    """Semi-supervised segmentation with a discriminator of label maps."""

    task: Literal["adversarial"] = "adversarial"
    adversarial: AdversaryBlock = AdversaryBlock()

    @property
    def pool(self) -> Pool:
        """Return which images without masks are used."""
        return self.adversarial.unlabelled

    @property
    def unlabelled_start(self) -> int:
        """Return the update from which on images without masks are used."""
        return self.adversarial.unlabelled_start


def head_of(settings: TaskSettings) -> HeadName:
    """Return the head of a network with one output per image."""
    return settings.head if isinstance(settings, ClassificationSettings | LocalisationSettings) else "average"


def upsampling_of(settings: TaskSettings) -> Upsampling | None:
    """Return the upsampling method of the decoder, None if not set."""
    method: Upsampling | None = getattr(settings, "upsampling", None)
    return method


def is_deeply_supervised(settings: TaskSettings) -> bool:
    """Return whether maps within the decoder have a loss of their own."""
    return isinstance(settings, MaskSettings) and settings.deep_supervision


def pool_of(settings: TaskSettings) -> Pool | None:
    """Return which images without masks a task uses, None if it uses none."""
    return settings.pool if isinstance(settings, MaskSettings) else None


def unlabelled_start_of(settings: TaskSettings) -> int:
    """Return the update from which on images without masks are used."""
    return settings.unlabelled_start if isinstance(settings, SemiSupervisedSettings) else 0


def label_smoothing_of(settings: TaskSettings) -> float:
    """Return the label smoothing of a task, 0 if it has none."""
    return settings.label_smoothing if isinstance(settings, MaskSettings | ClassificationSettings) else 0.0


def structure_of(settings: TaskSettings) -> str | None:
    """Return the structure to localise, None if not set."""
    return settings.structure if isinstance(settings, LocalisationSettings) else None


def loss_problem(losses: Iterable[LossName], target: TargetKind, *, exclusive: bool) -> str | None:
    """Return an error message if these losses do not support the target, else None."""
    allowed = [name for name in losses_of[target] if exclusive or name not in _OF_EXCLUSIVE]
    wrong = [name for name in losses if name not in allowed]
    if not wrong:
        return None
    classes = {"mask": " of exclusive classes" if exclusive else " of overlapping classes"}.get(target, "")
    remedy = "take binary_cross_entropy" if set(wrong) <= set(_OF_EXCLUSIVE) else "choose one of these"
    return f"loss {', '.join(wrong)} does not fit {target}{classes}; allowed: {', '.join(allowed)}; {remedy}"


def class_weights_problem(weights: Mapping[str, float], classes: Iterable[str], *, exclusive: bool) -> str | None:
    """Return an error message for invalid weights by class name, else None.

    Exclusive classes also have a weight for "background".
    """
    foreground = tuple(classes)
    allowed = ("background", *foreground) if exclusive else foreground
    unknown = [name for name in weights if name not in allowed]
    if unknown:
        return f"unknown class {', '.join(unknown)}; allowed: {', '.join(allowed)}; correct the name"
    if not any(weights.get(name, 1.0) for name in foreground):
        return "every class weight is 0; allowed: at least one foreground class above 0; raise one"
    return None
