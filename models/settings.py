"""Settings of tasks, losses and optimisation as a study file spells them. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

LossName = Literal[
    "cross_entropy", "binary_cross_entropy", "dice", "log_dice", "focal", "jaccard", "tversky", "mse", "l1"
]
LossWeights = Mapping[LossName, Annotated[float, Field(ge=0)]]
Part = Literal["encoder", "decoder"]
TargetKind = Literal["image", "labels", "centre", "box", "mask", "box_mask"]

_OF_VALUES: tuple[LossName, ...] = ("mse", "l1")
_OF_MASKS: tuple[LossName, ...] = (
    "cross_entropy",
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
    patience: Annotated[int, Field(ge=1)] = 5


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


class ClassificationSettings(TaskSettings):
    """Multi-label image classification; uncertain labels (NaN) count neither in loss nor in score."""

    trains: ClassVar[tuple[Part, ...]] = ("encoder",)
    target: ClassVar[Literal["labels"]] = "labels"
    task: Literal["classification"] = "classification"
    loss: LossWeights = {"binary_cross_entropy": 1.0}


class LocalisationSettings(TaskSettings):
    """Regression of a structure's centre (x, y) or box (x, y, width, height), each in 0..1 of the image."""

    trains: ClassVar[tuple[Part, ...]] = ("encoder",)
    task: Literal["localisation"] = "localisation"
    loss: LossWeights = {"mse": 1.0}
    target: Literal["centre", "box"] = "centre"
    structure: str | None = None
    """Which structure; may be left out where the data has one only."""


class SegmentationSettings(TaskSettings):
    """Masks. `target: box_mask` fills boxes and learns those. `class_weights` by class name, default 1."""

    task: Literal["segmentation"] = "segmentation"
    loss: LossWeights = {"binary_cross_entropy": 1.0, "dice": 1.0}
    target: Literal["mask", "box_mask"] = "mask"
    class_weights: Mapping[str, Annotated[float, Field(ge=0)]] = {}


def loss_problem(losses: Iterable[LossName], target: TargetKind, *, exclusive: bool) -> str | None:
    """Say in one line why such a target cannot be learned with these losses; None where it can."""
    allowed = [name for name in losses_of[target] if exclusive or name != "cross_entropy"]
    wrong = [name for name in losses if name not in allowed]
    if not wrong:
        return None
    classes = {"mask": " of exclusive classes" if exclusive else " of overlapping classes"}.get(target, "")
    remedy = "take binary_cross_entropy" if wrong == ["cross_entropy"] else "choose one of these"
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
