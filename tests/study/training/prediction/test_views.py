"""Test-time augmentation: the set of views, and their mean as that of the transformed images."""

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from study.config.evaluation import TtaName
from study.training.prediction.views import ORIGINAL, mean_probabilities, views_of

IMAGE = torch.arange(12.0).reshape(1, 1, 3, 4)


def task() -> Segmentation:
    segmentation = make_task(SegmentationSettings(task="segmentation"), Outputs(names=("a",), exclusive=False))
    assert isinstance(segmentation, Segmentation)
    return segmentation


class Positions(nn.Module):
    """A network whose logits depend on the position: the input plus a ramp from the upper left corner."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return images + torch.arange(height * width).reshape(height, width) / (height * width)


@pytest.mark.parametrize(
    ("tta", "count"),
    [
        ([], 1), (["flip"], 2), (["vertical_flip"], 2), (["rotate"], 4), (["flip", "vertical_flip"], 4),
        (["flip", "rotate"], 8), (["vertical_flip", "rotate"], 8), (["flip", "vertical_flip", "rotate"], 8),
    ],
)  # fmt: skip
def test_views_are_the_different_combinations(tta: list[TtaName], count: int) -> None:
    views = views_of(tta)
    square = torch.arange(9.0).reshape(3, 3)
    different = {tuple(view.of(square).flatten().tolist()) for view in views}
    assert len(views) == len(different) == count
    assert views[0] == ORIGINAL[0]


def test_views_are_the_named_transforms() -> None:
    image = IMAGE[0, 0].numpy()
    for tta, transformed in (("flip", image[:, ::-1]), ("vertical_flip", image[::-1])):
        np.testing.assert_array_equal(views_of([tta])[1].of(IMAGE)[0, 0].numpy(), transformed)  # type: ignore[list-item]
    turned = [view.of(IMAGE)[0, 0].numpy() for view in views_of(["rotate"])]
    for turns, view in enumerate(turned):
        np.testing.assert_array_equal(view, np.rot90(image, turns))


@pytest.mark.parametrize("count", range(4))
def test_undo_restores_the_orientation(count: int) -> None:
    names: list[TtaName] = ["flip", "vertical_flip", "rotate"]
    for tta in combinations(names, count):
        for view in views_of(tta):
            assert torch.equal(view.undo(view.of(IMAGE)), IMAGE)


def test_probabilities_are_the_mean_over_networks_and_views() -> None:
    image, network = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)), Positions()
    expected = torch.stack(
        [
            network(image).sigmoid(),
            network(image.flip(-1)).sigmoid().flip(-1),
            network(image.flip(-2)).sigmoid().flip(-2),
            network(image.flip(-1, -2)).sigmoid().flip(-1, -2),
        ]
    ).mean(dim=0)
    actual = mean_probabilities([network], task(), image, [views_of(["vertical_flip", "flip"])])  # type: ignore[list-item]
    torch.testing.assert_close(actual, expected)
    twice = mean_probabilities([network, network], task(), image, [views_of(["flip", "vertical_flip"])] * 2)  # type: ignore[list-item]
    torch.testing.assert_close(twice, expected)


def test_without_views_probabilities_are_those_of_the_network() -> None:
    image, network = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(1)), Positions()
    assert torch.equal(mean_probabilities([network], task(), image, [ORIGINAL]), network(image).sigmoid())  # type: ignore[list-item]


def test_networks_have_equal_weights_for_any_number_of_views() -> None:
    image, network = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(2)), Positions()
    views = [ORIGINAL, views_of(["rotate"])]
    first, second = (mean_probabilities([network], task(), image, [chosen]) for chosen in views)  # type: ignore[list-item]
    both = mean_probabilities([network, network], task(), image, views)  # type: ignore[list-item]
    torch.testing.assert_close(both, (first + second) / 2)
