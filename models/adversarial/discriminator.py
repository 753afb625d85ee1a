"""Discriminators of label maps: networks that tell true label maps from predicted ones.

Both take maps of one channel a class, one-hot or probabilities, and answer in logits, high for true.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial.patches import PATCHES
from models.settings import DiscriminatorSettings

SLOPE = 0.2

PATCH_WIDTHS = (64, 128, 256, 512, 512, 512)
PIXEL_WIDTHS = (64, 128, 256, 512)


class Discriminator(nn.Module):
    """What both kinds share: the input is the label map, with the image beside it where `conditional`."""

    def __init__(self, layers: nn.Module, *, conditional: bool, whole: bool) -> None:
        super().__init__()
        self.layers = layers
        self.conditional = conditional
        self.whole = whole

    def forward(self, labels: Tensor, images: Tensor) -> Tensor:
        """Return logits (N, 1, h, w) of label maps (N, classes, S, S) and their images (N, channels, S, S).

        One for each patch, or for each pixel at the size of the maps. The images are read where conditional only.
        """
        seen = torch.cat([labels, images], dim=1) if self.conditional else labels
        logits: Tensor = self.layers(seen)
        if self.whole:
            return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return logits


def make_discriminator(settings: DiscriminatorSettings, *, classes: int, channels: int) -> Discriminator:
    """Make one with random weights for label maps of `classes` channels and images of `channels`."""
    inputs = classes + channels * settings.conditional
    make = _makers[settings.name]
    made = Discriminator(
        make(inputs, settings), conditional=settings.conditional, whole=settings.name == "fully_convolutional"
    )
    made.apply(_initialise)
    return made


def _patchgan(inputs: int, settings: DiscriminatorSettings) -> nn.Sequential:
    """Isola et al. (2017), appendix 6.1.2: batch normalisation in all but the first layer and the last."""
    layers = PATCHES[settings.receptive_field]
    widths = (inputs, *PATCH_WIDTHS[: len(layers) - 1])
    made: list[nn.Module] = []
    for (kernel, stride), (before, after) in zip(layers, pairwise(widths), strict=False):
        made.append(nn.Conv2d(before, after, kernel, stride, padding=1, bias=not made))
        made += [nn.BatchNorm2d(after)] if len(made) > 1 else []
        made.append(nn.LeakyReLU(SLOPE))
    kernel, stride = layers[-1]
    return nn.Sequential(*made, nn.Conv2d(widths[-1], 1, kernel, stride, padding=1))


def _fully_convolutional(inputs: int, settings: DiscriminatorSettings) -> nn.Sequential:
    """Hung et al. (2018), section 3.2: five 4x4 convolutions of stride 2, without batch normalisation."""
    made: list[nn.Module] = []
    for before, after in pairwise((inputs, *PIXEL_WIDTHS)):
        made += [nn.Conv2d(before, after, 4, 2, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*made, nn.Conv2d(PIXEL_WIDTHS[-1], 1, 4, 2, padding=1))


_makers: Mapping[str, Callable[[int, DiscriminatorSettings], nn.Module]] = {
    "patchgan": _patchgan,
    "fully_convolutional": _fully_convolutional,
}


def _initialise(layer: nn.Module) -> None:
    """Draw weights with deviation 0.02, as Isola et al. (2017) did."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
