"""Discriminators of label maps: networks that classify label maps as ground truth or prediction.

Inputs are maps with one channel per class, one-hot or probabilities; outputs are logits, high for ground truth.
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
    """A discriminator of label maps; if `conditional`, the image is concatenated to the label map."""

    def __init__(self, layers: nn.Module, *, conditional: bool, per_pixel: bool) -> None:
        super().__init__()
        self.layers = layers
        self.conditional = conditional
        self.per_pixel = per_pixel

    def forward(self, labels: Tensor, images: Tensor) -> Tensor:
        """Return logits (N, 1, h, w) of label maps (N, classes, S, S) and their images (N, channels, S, S).

        Logits are per patch, or per pixel at the size of the maps. Images are used only if conditional.
        """
        inputs = torch.cat([labels, images], dim=1) if self.conditional else labels
        logits: Tensor = self.layers(inputs)
        if self.per_pixel:
            return F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        return logits


def make_discriminator(settings: DiscriminatorSettings, *, classes: int, channels: int) -> Discriminator:
    """Create a discriminator with random weights for label maps of `classes` channels and images of `channels`."""
    inputs = classes + channels * settings.conditional
    make_layers = _layer_makers[settings.name]
    discriminator = Discriminator(
        make_layers(inputs, settings),
        conditional=settings.conditional,
        per_pixel=settings.name == "fully_convolutional",
    )
    discriminator.apply(_initialise)
    return discriminator


def _patchgan(inputs: int, settings: DiscriminatorSettings) -> nn.Sequential:
    """Isola et al. (2017), appendix 6.1.2: batch normalisation in all layers except the first and the last."""
    layers = PATCHES[settings.receptive_field]
    widths = (inputs, *PATCH_WIDTHS[: len(layers) - 1])
    modules: list[nn.Module] = []
    for (kernel, stride), (in_channels, out_channels) in zip(layers, pairwise(widths), strict=False):
        modules.append(nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, bias=not modules))
        modules += [nn.BatchNorm2d(out_channels)] if len(modules) > 1 else []
        modules.append(nn.LeakyReLU(SLOPE))
    kernel, stride = layers[-1]
    return nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, kernel, stride, padding=1))


def _fully_convolutional(inputs: int, settings: DiscriminatorSettings) -> nn.Sequential:
    """Hung et al. (2018), section 3.2: five 4x4 convolutions of stride 2, without batch normalisation."""
    modules: list[nn.Module] = []
    for in_channels, out_channels in pairwise((inputs, *PIXEL_WIDTHS)):
        modules += [nn.Conv2d(in_channels, out_channels, 4, 2, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*modules, nn.Conv2d(PIXEL_WIDTHS[-1], 1, 4, 2, padding=1))


_layer_makers: Mapping[str, Callable[[int, DiscriminatorSettings], nn.Module]] = {
    "patchgan": _patchgan,
    "fully_convolutional": _fully_convolutional,
}


def _initialise(layer: nn.Module) -> None:
    """Initialise weights with standard deviation 0.02 (Isola et al. 2017)."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
