"""Settings of segmentation that also learns from weak labels, as written in a study file. Does not import torch."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from models.settings import (
    BaseModelSettings,
    LossName,
    LossWeights,
    Pool,
    SegmentationSettings,
    TaskSettings,
    whole_mask_losses,
)

WeakKind = Literal["box", "points", "scribble", "class"]
Rest = Literal["none", WeakKind]
"""Which labels the training images beyond the labelled fraction have."""
_OF_PIXELS: tuple[WeakKind, ...] = ("points", "scribble")
"""Labels that have the losses of the stage."""


class WeakLabelBlock(BaseModelSettings):
    """How images with weak labels are learned from.

    Their loss is multiplied by `weight`, which rises in the first `ramp_up` of all updates, a fraction; None: 0.2 for
    points and scribbles, whose few annotated pixels say little of the size of a class, otherwise 1. Each component of a
    mask gives `points` points where they are derived, and so does the background; the pixels within `radius`
    pixels of the network's input are annotated. With `size_prior` the area of classes that are known to be present has
    to lie within that of the masks, from 0.9 times the smallest to 1.1 times the largest (after Kervadec et al. 2019).
    """

    used_by: ClassVar[Mapping[str, tuple[WeakKind, ...]]] = {
        "points": ("points",),
        "radius": ("points",),
        "size_prior": ("points", "class"),
    }
    """The kinds of labels that use a setting, of settings that only some use."""
    weight: Annotated[float, Field(ge=0)] | None = None
    ramp_up: Annotated[float, Field(ge=0, le=1)] = 0.0
    points: Annotated[int, Field(ge=1, le=100)] = 1
    radius: Annotated[float, Field(ge=0, le=100)] = 2.0
    size_prior: bool = True

    @classmethod
    def users(cls, key: str) -> tuple[WeakKind, ...]:
        """Return the kinds of labels that use a setting."""
        return cls.used_by.get(key, get_args(WeakKind))

    def values_for(self, kind: WeakKind) -> dict[str, float | int | bool]:
        """Return the settings that a kind of labels uses."""
        values = self.model_dump(mode="json") | {"weight": self.weight_for(kind)}
        return {name: value for name, value in values.items() if kind in self.users(name)}

    def weight_for(self, kind: Rest) -> float:
        """Return the factor of the loss of images with a kind of labels."""
        if self.weight is not None:
            return self.weight
        return 0.2 if kind in _OF_PIXELS else 1.0


class WeakLabelSettings(SegmentationSettings):
    """Segmentation of masks, and with `rest` of weak labels of the other training images."""

    rest: Rest = "none"
    weak: WeakLabelBlock = WeakLabelBlock()

    @property
    def pool(self) -> Pool | None:
        """Return which images without masks may be used; those without weak labels are left out."""
        return None if self.rest == "none" else "all"

    @property
    def pixel_loss(self) -> LossWeights:
        """Return the losses of annotated pixels of images with weak labels: those that need no complete masks.

        Without masks the pixels at borders are unknown, so that the cross-entropy takes the place of that of borders.
        """
        weights: dict[LossName, float] = {}
        for name, weight in self.loss.items():
            used: LossName = "cross_entropy" if name == "boundary_cross_entropy" else name
            if weight and name not in whole_mask_losses:
                weights[used] = weights.get(used, 0.0) + weight
        return weights

    @model_validator(mode="after")
    def _check_rest(self) -> Self:
        if self.rest == "none":
            return self
        if self.target != "mask":
            raise ValueError(
                f"rest is {self.rest} with the target {self.target}; allowed: with the target mask; remove one of them"
            )
        if self.deep_supervision:
            raise ValueError(
                f"deep_supervision is true with rest: {self.rest}; allowed: false; remove it, set rest: none, or "
                "exclude the combination"
            )
        if self.rest in _OF_PIXELS and not self.pixel_loss:
            names = [name for name, weight in self.loss.items() if weight]
            raise ValueError(
                f"loss is {', '.join(names)} with rest: {self.rest}, which needs complete masks; allowed: with at "
                "least one other loss; add dice"
            )
        return self


def weak_kind_of(settings: TaskSettings) -> WeakKind | None:
    """Return the kind of weak labels that a task uses, None if it uses none."""
    if not isinstance(settings, WeakLabelSettings) or settings.rest == "none":
        return None
    return settings.rest


def weak_values_of(settings: TaskSettings) -> dict[str, float | int | bool | str]:
    """Return the kind of weak labels and the settings in use, defaults filled in; empty for a task without them."""
    kind = weak_kind_of(settings)
    return {} if kind is None else {"kind": kind, **weak_block_of(settings).values_for(kind)}


def weak_block_of(settings: TaskSettings) -> WeakLabelBlock:
    """Return how a task learns from weak labels; the default for tasks that cannot."""
    return settings.weak if isinstance(settings, WeakLabelSettings) else WeakLabelBlock()
