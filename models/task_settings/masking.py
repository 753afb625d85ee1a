"""Settings of masked reconstruction, as written in a study file. Does not import torch."""

import math
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from models.settings import LossSettings, LossWeights, NetworkPart, Upsampling

MaskingMethod = Literal["simmim", "mae"]
PUBLISHED_LOSS: Final[dict[MaskingMethod, LossWeights]] = {"simmim": {"l1": 1.0}, "mae": {"mse": 1.0}}
PUBLISHED_RATIO: Final[dict[MaskingMethod, float]] = {"simmim": 0.6, "mae": 0.75}
HEAD_WIDTH = 32
"""Channels of an attention head of the decoder of `mae`."""


class MaskedReconstructionSettings(LossSettings):
    """Prediction of hidden parts of the image: SimMIM (Xie et al. 2022) or MAE (He et al. 2022).

    `mask_ratio` is the share of hidden squares, whose side is `mask_size` pixels under `simmim` and the patch of the
    transformer under `mae`. `norm_pixels` normalises the target of `mae` in each patch by its mean and standard
    deviation. `decoder` is `published` (a linear layer, or a transformer of `decoder_width` and `decoder_depth` under
    `mae`), or under `simmim` that of the `architecture`, which can then be carried too.
    """

    target: ClassVar[Literal["image"]] = "image"
    task: Literal["masked_reconstruction"] = "masked_reconstruction"
    method: MaskingMethod = "simmim"
    loss: LossWeights = Field(default={})
    """Empty: as published, l1 under `simmim` and mse under `mae`."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """None: as published, 0.6 under `simmim` and 0.75 under `mae`."""
    mask_size: Annotated[int, Field(ge=1, le=10**4)] | None = None
    """None: the power of two nearest to an eighth of the shorter side; 32 at 192 to 256 pixels, as published."""
    norm_pixels: bool = True
    decoder: Literal["published", "architecture"] = "published"
    decoder_width: Annotated[int, Field(ge=HEAD_WIDTH, le=4096, multiple_of=HEAD_WIDTH)] = 512
    decoder_depth: Annotated[int, Field(ge=1, le=64)] = 8
    upsampling: Upsampling | None = None
    """Upsampling method of the architecture's decoder; None: as published."""

    @property
    def trains(self) -> tuple[NetworkPart, ...]:
        """Return the parts trained in addition to the head."""
        return ("encoder", "decoder") if self.decoder == "architecture" else ("encoder",)

    @property
    def losses(self) -> LossWeights:
        """Return the weights of the losses."""
        return self.loss or PUBLISHED_LOSS[self.method]

    @property
    def ratio(self) -> float:
        """Return the share of hidden squares."""
        return self.mask_ratio or PUBLISHED_RATIO[self.method]

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.loss and not any(self.loss.values()):
            raise ValueError("every weight of the loss is 0; allowed: at least one weight above 0; raise one")
        return self

    @model_validator(mode="after")
    def _check_unused(self) -> Self:
        unused = (
            ("norm_pixels", "decoder_width", "decoder_depth") if self.method == "simmim" else ("mask_size", "decoder")
        )
        other = "mae" if self.method == "simmim" else "simmim"
        for key in unused:
            value = getattr(self, key)
            if value != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} is {value} under {self.method}; allowed: under {other}; remove it, or set method: {other}"
                )
        if self.upsampling is not None and self.decoder != "architecture":
            raise ValueError(
                f"upsampling is {self.upsampling} with the decoder published; allowed: with decoder: architecture; "
                "remove it, or set that"
            )
        return self


def mask_side(settings: MaskedReconstructionSettings, shape: tuple[int, int]) -> int:
    """Return the side of the hidden squares of `simmim` in pixels, for images of this height and width."""
    if settings.mask_size is not None:
        return settings.mask_size
    power: int = max(0, round(math.log2(min(shape) / 8)))
    return 1 << power
