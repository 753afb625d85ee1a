"""Receptive fields of discriminators and the minimum image size that follows. Does not import torch."""

from collections.abc import Iterable, Mapping

from models.settings import DiscriminatorSettings

Layer = tuple[int, int]
"""Kernel and stride of a convolution."""

PATCHES: Mapping[int, tuple[Layer, ...]] = {
    16: ((4, 2), (4, 1), (4, 1)),
    70: ((4, 2), (4, 2), (4, 2), (4, 1), (4, 1)),
    256: ((4, 2), (3, 2), (3, 2), (3, 2), (3, 2), (4, 1), (4, 1)),
}
"""Layers by receptive field. 16 and 70 are those of pix2pix; 256 is its 286 with 3x3 convolutions in levels 2 to 5."""
PIXEL_SIDE = 32
"""Minimum side in pixels, which is halved five times."""


def receptive_field(layers: Iterable[Layer]) -> int:
    """Return the receptive field in pixels: from the last layer on, r becomes (r - 1) stride + kernel."""
    side = 1
    for kernel, stride in reversed(tuple(layers)):
        side = (side - 1) * stride + kernel
    return side


def discriminator_problem(settings: DiscriminatorSettings, *, shape: tuple[int, int]) -> str | None:
    """Return an error message if images of this height and width in pixels are too small, else None."""
    smallest = smallest_side(settings)
    if min(shape) >= smallest:
        return None
    smaller = [str(field) for field in PATCHES if settings.name == "patchgan" and field < settings.receptive_field]
    remedy = f"take receptive_field {' or '.join(smaller)}, or raise image.size" if smaller else "raise image.size"
    return f"image size is {min(shape)} under {settings.name}; allowed: {smallest} or more; {remedy}"


def smallest_side(settings: DiscriminatorSettings) -> int:
    """Return the minimum image side in pixels for which the output is not empty."""
    if settings.name == "fully_convolutional":
        return PIXEL_SIDE
    layers = PATCHES[settings.receptive_field]
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel - 2
    return side
