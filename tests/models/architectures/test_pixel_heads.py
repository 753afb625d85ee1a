"""Linear and perceptron heads against their formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.architectures.parts import Blueprint
from models.build import build
from models.network import Network


def network(architecture: str, backbone: str) -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=3, outputs=2)).eval()


def normalised(maps: torch.Tensor) -> torch.Tensor:
    """Batch norm with initial statistics."""
    return maps / (1 + 1e-5) ** 0.5


@pytest.mark.parametrize("backbone", ["resnet18", "tu-test_vit"])
def test_linear_is_a_linear_layer_on_the_deepest_features(backbone: str) -> None:
    model, images = network("linear", backbone), torch.rand(1, 3, 64, 96)
    (layer,) = (module for module in model.head.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        deepest = model.encoder((images - model.mean) / model.std)[-1]
        scores = (
            torch.einsum("nchw,oc->nohw", normalised(deepest), layer.weight[:, :, 0, 0]) + layer.bias[:, None, None]
        )
        expected = F.interpolate(scores, (64, 96), mode="bilinear")
        torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("backbone", ["resnet18", "tu-test_vit"])
def test_mlp_has_one_hidden_layer_on_the_concatenation_of_four_maps(backbone: str) -> None:
    model, images = network("mlp", backbone), torch.rand(1, 3, 64, 96)
    assert model.decoder is not None
    layers = [module for module in model.decoder.modules() if isinstance(module, nn.Conv2d)]
    (second,) = (module for module in model.head.modules() if isinstance(module, nn.Conv2d))
    weight, bias = torch.cat([layer.weight for layer in layers], dim=1)[:, :, 0, 0], layers[0].bias
    assert bias is not None
    assert len(layers) == 4
    with torch.no_grad():
        maps = [normalised(part) for part in model.encoder((images - model.mean) / model.std)[-4:]]
        size = maps[0].shape[-2:]
        joined = torch.cat([F.interpolate(part, size, mode="bilinear") for part in maps], dim=1)
        hidden = F.gelu(torch.einsum("nchw,oc->nohw", joined, weight) + bias[:, None, None])
        scores = torch.einsum("nchw,oc->nohw", hidden, second.weight[:, :, 0, 0]) + second.bias[:, None, None]  # type: ignore[index]
        torch.testing.assert_close(
            model(images), F.interpolate(scores, (64, 96), mode="bilinear"), atol=1e-4, rtol=1e-3
        )
