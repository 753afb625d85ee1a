"""Options of the library's architectures that differ from its defaults."""

import torch

from models.architectures.parts import Blueprint
from models.build import build


def test_spatial_pyramid_of_deeplabv3plus_has_the_published_rates() -> None:
    network = build(Blueprint(architecture="deeplabv3plus", backbone="resnet18", channels=1, outputs=1))
    assert network.decoder is not None
    rates = [layer.dilation[0] for layer in network.decoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [rate for rate in rates if rate > 1] == [6, 12, 18]
