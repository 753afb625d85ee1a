import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from models.losses.boundary import PEAK, SIGMA, boundary_weights
from models.losses.functions import losses

SIDE = 24


def image(*, classes: int, seed: int) -> Tensor:
    """Blobs of foreground classes: smoothed noise above a threshold."""
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    smooth = ndimage.gaussian_filter(noise, 1.5)
    ids = np.where(smooth > np.quantile(smooth, 0.75), 1 + (np.arange(SIDE)[None] * classes // SIDE), 0)
    return torch.from_numpy(ids.astype(np.uint8))


def regions(ids: Tensor) -> list[set[tuple[int, int]]]:
    """Flood fill by edges, one foreground class at a time."""
    left = {(int(y), int(x)) for y, x in ids.nonzero()}
    components = []
    while left:
        waiting, region = [left.pop()], set()
        while waiting:
            y, x = waiting.pop()
            region.add((y, x))
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and ids[near] == ids[y, x]:
                    left.remove(near)
                    waiting.append(near)
        components.append(region)
    return components


def brute_force(ids: Tensor) -> Tensor:
    pixels = torch.stack(torch.meshgrid(*[torch.arange(ids.shape[0])] * 2, indexing="ij"), dim=-1).double().view(-1, 2)
    distances = [torch.cdist(pixels, torch.tensor(sorted(region)).double()).amin(dim=1) for region in regions(ids)]
    if len(distances) < 2:
        return torch.zeros(ids.shape)
    nearest = torch.stack(distances).sort(dim=0).values[:2].sum(dim=0)
    return (PEAK * torch.exp(-(nearest**2) / (2 * SIGMA**2))).view(ids.shape).float()


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_equal_those_of_the_formula_by_brute_force(classes: int, seed: int) -> None:
    ids = image(classes=classes, seed=seed)
    assert len(regions(ids)) > 3
    torch.testing.assert_close(boundary_weights(ids[None])[0], brute_force(ids), rtol=1e-5, atol=1e-6)


def test_a_pixel_between_two_regions_is_weighted_by_the_sum_of_its_distances() -> None:
    ids = torch.zeros(1, 9, 9, dtype=torch.uint8)
    ids[0, :, 0], ids[0, :, 8] = 1, 1
    expected = 10 * torch.exp(torch.tensor(-(8.0**2) / 50))
    torch.testing.assert_close(boundary_weights(ids), expected.expand(1, 9, 9))


@pytest.mark.parametrize("columns", [[], [4]])
def test_fewer_than_two_regions_have_weight_0(columns: list[int]) -> None:
    ids = torch.zeros(1, 9, 9, dtype=torch.int64)
    ids[0, :, columns] = 1
    assert not boundary_weights(ids).any()


def test_touching_regions_of_two_classes_are_two() -> None:
    ids = torch.ones(1, 4, 4, dtype=torch.int64)
    ids[0, :, 2:] = 2
    assert boundary_weights(ids)[0, 0, 1].item() == pytest.approx(10 * np.exp(-1 / 50))


def test_distant_regions_have_no_visible_effect() -> None:
    ids = torch.zeros(1, 8, 200, dtype=torch.int64)
    ids[0, :, 0], ids[0, :, -1] = 1, 1
    assert boundary_weights(ids).max() < 1e-12


def test_the_loss_is_cross_entropy_by_class_weight_plus_boundary_weight() -> None:
    ids = torch.stack([image(classes=2, seed=2), image(classes=2, seed=3)])
    logits = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    class_weights = torch.tensor([0.5, 1.0, 3.0])
    weights = class_weights[ids.long()] + torch.stack([brute_force(image_ids) for image_ids in ids])
    cost = torch.nn.functional.cross_entropy(logits, ids.long(), reduction="none")
    loss = losses["boundary_cross_entropy"](logits, ids, exclusive=True, class_weights=class_weights)
    torch.testing.assert_close(loss, (weights * cost).sum() / weights.sum())


def test_without_neighbouring_regions_the_loss_is_cross_entropy() -> None:
    ids = torch.zeros(2, 8, 8, dtype=torch.int64)
    ids[:, 2:4, 2:4] = 1
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    terms = [losses[name](logits, ids, exclusive=True) for name in ("cross_entropy", "boundary_cross_entropy")]
    torch.testing.assert_close(*terms)


def test_overlapping_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="boundary_cross_entropy on overlapping classes; allowed: exclusive classes"):
        losses["boundary_cross_entropy"](torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8), exclusive=False)
