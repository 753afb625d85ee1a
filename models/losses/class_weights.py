"""Class weights from the frequency of classes."""

from collections.abc import Mapping


def balanced(pixels: Mapping[str, int]) -> dict[str, float]:
    """Return weights inversely proportional to the number of pixels by class, with a mean of 1.

    Classes without pixels have weight 1 and do not enter the mean.
    """
    inverse = {name: 1 / count for name, count in pixels.items() if count}
    mean = sum(inverse.values()) / max(len(inverse), 1)
    return {name: inverse[name] / mean if name in inverse else 1.0 for name in pixels}
