"""Settings of tasks that learn from several augmented views of images, without annotation. Does not import torch."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from models.settings import NetworkPart, TaskSettings

Width = Annotated[int, Field(ge=1, le=2**16)]
Momentum = Annotated[float, Field(ge=0, lt=1)]

PartOfSide = Annotated[float, Field(ge=0, lt=1)]

GLOBAL_VIEWS = 2
"""Number of views of each image at the full size."""


class ViewSettings(TaskSettings):
    """Settings of tasks that compare the embeddings of views of images.

    Embeddings are the outputs of a projection head on the averages of the encoder's deepest feature map: a linear layer
    of `hidden` values, batch norm, ReLU and a linear layer of `projection` values.
    """

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder",)
    target: ClassVar[Literal["image"]] = "image"
    hidden: Width = 512
    projection: Width = 128


class ContrastiveSettings(ViewSettings):
    """Contrastive learning, SimCLR (Chen et al. 2020), or MoCo (He et al. 2020) with a `queue`.

    `queue` is the number of embeddings of earlier images that are further negatives. They come from a copy of the
    network whose weights are an exponential moving average with decay `momentum`.
    """

    task: Literal["contrastive"] = "contrastive"
    temperature: Annotated[float, Field(gt=0, le=10)] = 0.1
    queue: Annotated[int, Field(ge=0, le=2**20)] = 0
    momentum: Momentum = 0.99

    @model_validator(mode="after")
    def _check_momentum(self) -> Self:
        default = type(self).model_fields["momentum"].default
        if self.momentum != default and not self.queue:
            raise ValueError(
                f"momentum is {self.momentum:g} with queue 0; allowed: with a queue, whose embeddings it averages; "
                "remove it, or set queue"
            )
        return self


class SelfDistillationSettings(ViewSettings):
    """Self-distillation, BYOL (Grill et al. 2020).

    A predictor (a perceptron as the projection head) predicts the embedding that a moving average of the network gives
    to another view of the image. Its decay rises from `momentum` to 1 along a cosine over all updates. `local_views`
    are further views that only predict (multi-crop, Caron et al. 2020): `local_crop` takes the place of `augment.crop`,
    and their sides are `local_size` of those of the images.
    """

    task: Literal["self_distillation"] = "self_distillation"
    hidden: Width = 1024
    projection: Width = 256
    momentum: Momentum = 0.99
    local_views: Annotated[int, Field(ge=0, le=16)] = 0
    local_size: Annotated[float, Field(gt=0, le=1)] = 0.5
    local_crop: tuple[PartOfSide, PartOfSide] = (0.5, 0.8)

    @model_validator(mode="after")
    def _check_local_views(self) -> Self:
        for name in ("local_size", "local_crop"):
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default and not self.local_views:
                shown = list(value) if isinstance(value, tuple) else value
                raise ValueError(
                    f"{name} is {shown} with local_views 0; allowed: with local views; remove it, or set local_views"
                )
        low, high = self.local_crop
        if low > high:
            raise ValueError(
                f"local_crop is [{low:g}, {high:g}]; allowed: the smaller number first; write local_crop: "
                f"[{high:g}, {low:g}]"
            )
        return self

    def local_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the local views of images with some height and width."""
        height, width = (max(1, round(side * self.local_size)) for side in shape)
        return height, width


def views_of(settings: TaskSettings) -> int:
    """Return the number of views of each image that a task compares, 0 if it takes the images themselves."""
    if isinstance(settings, SelfDistillationSettings):
        return GLOBAL_VIEWS + settings.local_views
    return GLOBAL_VIEWS if isinstance(settings, ViewSettings) else 0
