"""The `evaluate` section of a study file, and the settings of evaluation that a stage overrides."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from datasets.settings import EvaluatedSize
from study.config.fields import Count, Settings, each_once

Threshold = Annotated[float, Field(gt=0, lt=1)]
TtaName = Literal["flip", "vertical_flip", "rotate"]
Auto = Literal["auto"]
Pixels = Annotated[int, Field(strict=True, ge=0, le=10**12)]
T = TypeVar("T")


class ClassThreshold(Settings):
    """A separate probability threshold for one class; pixels below it get the most probable other class.

    The threshold is the smallest multiple of 0.005 at which the false positive rate of the class on the pixels of
    the validation images is at most `false_positive_rate`. Scores with it are reported in addition to those
    without, as the splits test_thresholded and validation_thresholded.
    """

    class_: str = Field(alias="class")
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)]


class EmptyRule(Settings):
    """The mask of a class is empty unless at least `area` pixels have a probability of at least `top`.

    Otherwise it has the pixels whose probability is at least `bottom`.
    """

    top: Threshold
    area: Count
    bottom: Threshold


class ClassPostprocess(Settings):
    """Post-processing of one class; `auto` is chosen on the validation images."""

    empty: EmptyRule | Auto | None
    smallest_area: Pixels | Auto
    largest_component: bool | Auto

    @property
    def has_effect(self) -> bool:
        """Whether masks may change."""
        return bool(self.empty or self.smallest_area or self.largest_component)


class Postprocess(Settings):
    """Post-processing of predicted masks, in this order; each value for all classes, or a mapping from class to value.

    `empty` decides whether the class is in the image at all. Connected components of fewer than `smallest_area`
    pixels are removed, and with `largest_component` all components but the largest. Components are connected by 8
    neighbours in an image and 26 in a volume, which is processed as a whole. `auto` chooses the value with the best
    mean Dice (1 for a correctly empty mask) on the validation images; without these it is not applied. Scores are
    reported in addition to those without post-processing, as the splits test_postprocessed and
    validation_postprocessed.
    """

    empty: EmptyRule | Auto | Mapping[str, EmptyRule | Auto] | None = None
    smallest_area: Pixels | Auto | Mapping[str, Pixels | Auto] = 0
    largest_component: bool | Auto | Mapping[str, bool | Auto] = False

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        rules = self.empty.values() if isinstance(self.empty, Mapping) else (self.empty,)
        for rule in rules:
            if isinstance(rule, EmptyRule) and rule.bottom > rule.top:
                raise ValueError(
                    f"empty has bottom {rule.bottom:g} and top {rule.top:g}; allowed: bottom at most top; lower bottom"
                )
        return self

    def of(self, class_: str) -> ClassPostprocess:
        """Return the settings of a class."""
        return ClassPostprocess(
            empty=_value(self.empty, class_, None),
            smallest_area=_value(self.smallest_area, class_, 0),
            largest_component=_value(self.largest_component, class_, False),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes that are named."""
        mappings = (self.empty, self.smallest_area, self.largest_component)
        return tuple(dict.fromkeys(name for value in mappings if isinstance(value, Mapping) for name in value))


class Evaluate(Settings):
    """How target stages are scored.

    `size` is the side, or height and width, in pixels to which predictions and masks are resized, or `native`:
    predictions are resized to the size of each image. Default: the largest `image.size` of a target stage. `tta` is
    test-time augmentation: the probabilities are means over the image and its views by all combinations of `flip`
    (left to right), `vertical_flip` and `rotate` (by 90, 180 and 270 degrees). Default: that of the recipe of a stage.
    """

    size: EvaluatedSize | None = None
    threshold: Threshold = 0.5
    tta: tuple[TtaName, ...] | None = None
    postprocess: Postprocess = Postprocess()

    _each_once = field_validator("tta")(each_once)


def _value(value: T | Mapping[str, T], class_: str, default: T) -> T:
    return value.get(class_, default) if isinstance(value, Mapping) else value
