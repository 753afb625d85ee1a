"""Settings of augmentation, as written in a study file, and named sets of their values."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from datasets.settings import BaseDataSettings, Probability

PartOfSide = Annotated[float, Field(ge=0, lt=1)]
PresetName = Literal["light", "strong", "views", "photometric"]
PRESETS: Final[Mapping[str, Mapping[str, float]]] = {
    "light": {"rotate": 10, "scale": 0.1, "shift": 0.05, "brightness": 0.1, "contrast": 0.1, "gamma": 0.1},
    "strong": {
        "rotate": 20, "scale": 0.25, "shift": 0.1, "elastic": 0.03, "brightness": 0.15, "contrast": 0.2, "gamma": 0.3,
        "hue": 0.02, "saturation": 0.3, "blur": 1.0, "low_resolution": 2.0, "noise": 0.02,
    },
    "views": {
        "rotate": 10, "crop": 0.3, "hue": 0.03, "saturation": 0.3, "brightness": 0.2, "contrast": 0.2, "gamma": 0.2,
        "blur": 1.0, "noise": 0.02,
    },
    "photometric": {
        "hue": 0.05, "saturation": 0.5, "brightness": 0.25, "contrast": 0.4, "gamma": 0.3, "blur": 2.0,
    },
}  # fmt: skip
"""Values of each preset; all other settings keep their defaults.

The ranges of `strong` follow nnU-Net (Isensee et al. 2021), where it has a counterpart. `views` has the transforms of
SimCLR (Chen et al. 2020) and a rotation, all weaker: with few images and updates nothing is learned at the strength
that suits photographs. `photometric` has the transforms of the strong views of UniMatch (Yang et al. 2023): changes of
colour and a blur, which move nothing. No preset has flips or quarter turns:
whether a mirrored image is possible depends on the data.
"""


VALUE_TRANSFORMS: Final = (
    "hue", "saturation", "brightness", "contrast", "gamma", "blur", "sharpness", "low_resolution", "noise", "dropout",
)  # fmt: skip
"""Transforms that change values and move nothing."""


class AugmentSettings(BaseDataSettings):
    """Random augmentation of training images; 0 disables a transform.

    `preset` is a named set of values that explicit settings override.

    Transforms that move pixels, in this order: `flip` (left to right) and `vertical_flip` are probabilities, as is
    `quarter_turns`, of a turn by 90, 180 or 270 degrees (square images only). `rotate` and `shear` are in degrees,
    `scale` and `shift` fractions of the image. `crop` removes up to this fraction of the side, or a fraction from low
    to high, and enlarges the rest; `elastic` displaces points by up to about this fraction of the shorter side (Simard
    et al. 2003). `border` fills what moves in from outside the image: with 0, or with the image reflected at its edge
    (edge pixels are not repeated).

    Transforms that change values, in this order, each with a strength drawn uniformly up to the maximum: `hue` rotates
    colours about the grey axis by up to this fraction of the colour circle, `saturation` changes the distance of
    colours from grey by up to this fraction (both change RGB images only). `brightness` and `contrast` are fractions,
    `gamma` a range around 1. `blur` is the maximum standard deviation of a Gaussian filter in pixels, `sharpness` the
    maximum factor of an unsharp mask, `low_resolution` the maximum factor by which the image is reduced and enlarged
    again (Isensee et al. 2021). `noise` is a fixed standard deviation (values 0..1). `dropout` is the maximum share
    of the image covered by squares that are filled with its mean (Singh and Lee 2017).

    Transforms that mix two examples with masks: `cutmix` (Yun et al. 2019, French et al. 2020) and `copy_paste`
    (Ghiasi et al. 2021) are probabilities.
    """

    preset: PresetName | None = None
    flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    quarter_turns: Probability = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    crop: PartOfSide | tuple[PartOfSide, PartOfSide] = 0.0
    elastic: Annotated[float, Field(ge=0, lt=1)] = 0.0
    border: Literal["constant", "reflect"] = "constant"
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    blur: Annotated[float, Field(ge=0, le=20)] = 0.0
    sharpness: Annotated[float, Field(ge=0, le=10)] = 0.0
    low_resolution: Annotated[float, Field(ge=0, le=16)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cutmix: Probability = 0.0
    copy_paste: Probability = 0.0

    @model_validator(mode="wrap")
    @classmethod
    def _fill_preset(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - raw document
        """Fill in the values of the preset. They do not count as set, so that another preset can replace them."""
        name = value.get("preset", cls.model_fields["preset"].default) if isinstance(value, Mapping) else None
        if not isinstance(name, str) or name not in PRESETS:
            return handler(value)
        settings = handler({**PRESETS[name], **value})
        settings.model_fields_set.intersection_update(value)
        return settings

    @field_validator("low_resolution")
    @classmethod
    def _check_low_resolution(cls, factor: float) -> float:
        if 0 < factor < 1:
            raise ValueError(
                f"is {factor:g}; allowed: a factor of 1 to 16 by which the image is reduced, or 0 for none; "
                f"write {1 / factor:.3g} if the side is to shrink to {factor:g}"
            )
        return factor

    @model_validator(mode="after")
    def _check_crop(self) -> Self:
        low, high = self.crop_range
        if low > high:
            raise ValueError(
                f"crop is [{low:g}, {high:g}]; allowed: the smaller number first; write crop: [{high:g}, {low:g}]"
            )
        return self

    @property
    def crop_range(self) -> tuple[float, float]:
        """Return the smallest and the largest fraction of the side that `crop` removes."""
        return self.crop if isinstance(self.crop, tuple) else (0.0, self.crop)

    @property
    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, without `preset`."""
        fields = type(self).model_fields
        return {name: getattr(self, name) for name, field in fields.items()
                if name != "preset" and getattr(self, name) != field.default}  # fmt: skip


class ViewAugmentSettings(AugmentSettings):
    """Augmentation of tasks that compare views of images, which learn nothing from equal views."""

    preset: PresetName | None = "views"


class StrongAugmentSettings(AugmentSettings):
    """Augmentation of strong views, which show the same pixels as the weak view and differ in their values alone."""

    preset: PresetName | None = "photometric"

    @model_validator(mode="after")
    def _check_transforms(self) -> Self:
        for name, value in self.changed.items():
            if name not in VALUE_TRANSFORMS:
                shown = f"{value:g}" if isinstance(value, float) else value
                is_of_preset = self.preset is not None and PRESETS[self.preset].get(name) == value
                given = f"preset is {self.preset}, with {name} {shown}" if is_of_preset else f"{name} is {shown}"
                allowed = ", ".join(VALUE_TRANSFORMS)
                raise ValueError(
                    f"{given}, but all views of an image show the same pixels; allowed: "
                    f"{f'preset photometric or null, {allowed}' if is_of_preset else allowed}; "
                    "remove it, or set it in augment, which is for all views"
                )
        return self
