"""Settings of semi-supervised segmentation by consistency, as written in a study file. Does not import torch."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.settings import BaseModelSettings, Pool, SemiSupervisedSettings, TaskSettings

ConsistencyMethod = Literal["mean_teacher", "fixmatch", "unimatch", "cross_pseudo"]


class ConsistencyBlock(BaseModelSettings):
    """Which predictions of unlabelled images have to agree.

    `mean_teacher` (Tarvainen and Valpola 2017): the network with its moving average, the teacher, whose decay is
    `momentum`; with `cutmix` it is CutMix-Seg (French et al. 2020). `fixmatch` (Sohn et al. 2020): the prediction of a
    strong view with the most likely classes of the weak view, at pixels with a probability of at least `confidence`.
    `unimatch` (Yang et al. 2023): the same with two strong views, and with a weak view whose feature maps lose channels
    with the probability `feature_dropout`. `cross_pseudo` (Chen et al. 2021): two networks, each with the most likely
    classes of the other.

    `unlabelled` selects the unlabelled images. Their loss is multiplied by `weight`, which rises in the first `ramp_up`
    of all updates, a fraction; None: 0.2 under `mean_teacher`, otherwise 0. `cutmix` is the probability that a
    rectangle of another unlabelled image is pasted. Under `cross_pseudo` without `cutmix`, `weight` also multiplies the
    loss of labelled images against the classes of the other network.
    """

    used_by: ClassVar[Mapping[str, tuple[ConsistencyMethod, ...]]] = {
        "momentum": ("mean_teacher",),
        "confidence": ("fixmatch", "unimatch"),
        "feature_dropout": ("unimatch",),
    }
    """The methods that use a setting, of settings that only some use."""
    method: ConsistencyMethod = "mean_teacher"
    unlabelled: Pool = "hidden"
    weight: Annotated[float, Field(ge=0)] = 1.0
    ramp_up: Annotated[float, Field(ge=0, le=1)] | None = None
    cutmix: Annotated[float, Field(ge=0, le=1)] = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.95
    feature_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _check_unused(self) -> Self:
        for key, methods in self.used_by.items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            if self.method not in methods and value != default:
                shown = f"{value:g}" if isinstance(value, float) else "set"
                allowed = " or ".join(methods)
                raise ValueError(
                    f"{key} is {shown} under {self.method}; allowed: under {allowed}; remove it, change the method, "
                    "or exclude the combination with compare.exclude"
                )
        return self

    @property
    def ramp_up_share(self) -> float:
        """Return the share of all updates in which the weight rises."""
        if self.ramp_up is not None:
            return self.ramp_up
        return 0.2 if self.method == "mean_teacher" else 0.0

    @property
    def strong_views(self) -> int:
        """Return the number of views of an image that are changed further than its weak view, or have a rectangle."""
        if self.method == "cross_pseudo":
            return 1 if self.cutmix else 0
        return 2 if self.method == "unimatch" else 1

    @property
    def views(self) -> int:
        """Return the number of views of an image: weak, strong, and with `cutmix` the weak one of its partner."""
        return 1 + self.strong_views + (1 if self.cutmix else 0)


class ConsistencySettings(SemiSupervisedSettings):
    """Semi-supervised segmentation by consistency of predictions."""

    task: Literal["consistency"] = "consistency"
    consistency: ConsistencyBlock = ConsistencyBlock()

    @property
    def pool(self) -> Pool:
        """Return which images without masks are used."""
        return self.consistency.unlabelled


def consistency_of(settings: TaskSettings) -> ConsistencyBlock | None:
    """Return the settings of consistency of a task, None if it has none."""
    return settings.consistency if isinstance(settings, ConsistencySettings) else None
