"""Rules that post-process the predicted mask of a class in an image or a volume."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Self

import numpy as np

from datasets.large import release
from results.metrics.contours import Mask
from results.postprocessing.components import MaskComponents


@dataclass(frozen=True, kw_only=True)
class EmptyMaskRule:
    """The mask is empty unless at least `area` pixels have a probability of at least `top`.

    Otherwise it has the pixels whose probability is at least `bottom`.
    """

    top: float
    area: int
    bottom: float


@dataclass(frozen=True, kw_only=True)
class ClassRule:
    """Post-processing of one class, in the order of the attributes.

    Attributes:
        empty: When the mask is empty.
        smallest_area: Connected components of fewer pixels are removed.
        largest_component: Whether all components but the largest are removed.
    """

    empty: EmptyMaskRule | None = None
    smallest_area: int = 0
    largest_component: bool = False

    def scaled(self, factor: float) -> "ClassRule":
        """Return the rule for images with `factor` times as many pixels."""
        empty = self.empty and replace(self.empty, area=max(1, round(self.empty.area * factor)))
        return replace(self, empty=empty, smallest_area=round(self.smallest_area * factor))

    def record(self) -> dict[str, Any]:
        """Return the rule as JSON stores it."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the rule of a record."""
        empty = record["empty"]
        return cls(**{**record, "empty": None if empty is None else EmptyMaskRule(**empty)})

    @classmethod
    def combined(cls, rules: Sequence["ClassRule"]) -> Self:
        """Return the medians of the rules of several networks.

        An empty-mask rule or the restriction to the largest component that at most half of the networks have is not
        applied.
        """
        empty = [rule.empty for rule in rules if rule.empty is not None]
        return cls(
            empty=EmptyMaskRule(
                top=median(rule.top for rule in empty),
                area=round(median(rule.area for rule in empty)),
                bottom=median(rule.bottom for rule in empty),
            )
            if 2 * len(empty) > len(rules)
            else None,
            smallest_area=round(median(rule.smallest_area for rule in rules)),
            largest_component=2 * sum(rule.largest_component for rule in rules) > len(rules),
        )


def postprocess(mask: Mask, rule: ClassRule, *, top_pixels: int | None = None) -> None:
    """Post-process a mask in place.

    Args:
        mask: (height, width), or (slices, height, width) of a volume: pixels from `bottom` on under an empty-mask rule.
        rule: The rule.
        top_pixels: Number of pixels with a probability of at least `top`, under an empty-mask rule.
    """
    if rule.empty is not None:
        assert top_pixels is not None, "an empty-mask rule needs the pixels above its upper threshold"
        if top_pixels < rule.empty.area:
            mask[...] = False
            return
    if rule.smallest_area <= 1 and not rule.largest_component:
        return
    components = MaskComponents(mask)
    kept = components.sizes >= rule.smallest_area
    kept[0] = False
    if rule.largest_component and components.count:
        kept[np.arange(len(kept)) != components.sizes.argmax()] = False
    for part, numbers in components.bands():
        mask[part] = kept[numbers]
        release(mask)
