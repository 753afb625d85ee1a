"""Losses against probabilities in place of masks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models.losses.functions import losses, weighted_sum
from models.settings import LossName, soft_losses

NAN = float("nan")
OVERLAPS = [name for name in soft_losses if "entropy" not in name]
BOTH = [
    (name, exclusive) for name in soft_losses for exclusive in (True, False) if exclusive or name != "cross_entropy"
]


def case(*, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Return logits and probabilities (3, 4, 8, 8), of which a quarter is unknown."""
    generator = torch.Generator().manual_seed(0)
    logits, others = torch.randn(2, 3, 4, 8, 8, generator=generator) * 2
    target = others.softmax(dim=1) if exclusive else others.sigmoid()
    target[..., :4, :4] = NAN
    return logits, target


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_that_of_torch(smoothing: float) -> None:
    logits, target = case(exclusive=True)
    known = ~torch.isnan(target[:, 0])
    pixels, truth = (values.movedim(1, -1)[known] for values in (logits, target))
    found = weighted_sum({"cross_entropy": 1.0}, logits, target, exclusive=True, label_smoothing=smoothing)
    torch.testing.assert_close(found, F.cross_entropy(pixels, truth, label_smoothing=smoothing))


@pytest.mark.parametrize("exclusive", [True, False])
def test_binary_cross_entropy_is_that_of_torch(exclusive: bool) -> None:
    logits, target = case(exclusive=exclusive)
    p = logits.double().softmax(dim=1) if exclusive else logits.double().sigmoid()
    known = ~torch.isnan(target)
    expected = F.binary_cross_entropy(p[known], target[known].double()).float()
    torch.testing.assert_close(losses["binary_cross_entropy"](logits, target, exclusive=exclusive), expected)


def sizes(logits: Tensor, target: Tensor, *, exclusive: bool) -> tuple[NDArray[np.float64], ...]:
    """Return intersection, prediction and truth of each foreground class, from the known pixels."""
    p = (logits.double().softmax(dim=1) if exclusive else logits.double().sigmoid()).numpy()
    t = target.double().numpy()
    p = np.where(np.isnan(t), 0, p)[:, int(exclusive) :]
    t = np.nan_to_num(t)[:, int(exclusive) :]
    return np.minimum(p, t).sum((0, 2, 3)), p.sum((0, 2, 3)), t.sum((0, 2, 3))


@pytest.mark.parametrize("exclusive", [True, False])
def test_dice_and_jaccard_have_the_intersection_of_fuzzy_sets(exclusive: bool) -> None:
    logits, target = case(exclusive=exclusive)
    common, p, t = sizes(logits, target, exclusive=exclusive)
    expected = {"dice": (2 * common + 1) / (p + t + 1), "jaccard": (common + 1) / (p + t - common + 1)}
    for name, score in expected.items():
        found = weighted_sum({name: 1.0}, logits, target, exclusive=exclusive)  # type: ignore[dict-item]
        assert float(found) == pytest.approx(float(np.mean(1 - score)), rel=1e-5)


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("name", OVERLAPS)
def test_an_overlap_loss_is_0_where_prediction_and_target_are_equal(name: LossName, exclusive: bool) -> None:
    logits, _ = case(exclusive=exclusive)
    target = logits.softmax(dim=1) if exclusive else logits.sigmoid()
    assert float(losses[name](logits, target, exclusive=exclusive)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("name", "exclusive"), BOTH)
def test_certain_probabilities_have_the_loss_of_a_mask(name: LossName, exclusive: bool) -> None:
    logits, _ = case(exclusive=exclusive)
    ids = torch.randint(0, 4, (3, 8, 8), generator=torch.Generator().manual_seed(1))
    soft = F.one_hot(ids, 4).movedim(-1, 1).float()
    hard = ids.byte() if exclusive else soft.byte()
    unknown = torch.zeros(3, 8, 8, dtype=torch.bool)
    unknown[:, 2:5] = True
    soft = soft.masked_fill(unknown[:, None], NAN)
    hard = hard.masked_fill(unknown if exclusive else unknown[:, None], 255)
    weights = torch.tensor([0.5, 1.0, 2.0, 1.0])
    found, expected = (
        losses[name](logits, target, exclusive=exclusive, class_weights=weights) for target in (soft, hard)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("name", "exclusive"), BOTH)
def test_unknown_pixels_have_no_gradient(name: LossName, exclusive: bool) -> None:
    logits, target = case(exclusive=exclusive)
    logits.requires_grad_()
    losses[name](logits, target, exclusive=exclusive).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[torch.isnan(target)].any()
    assert logits.grad[~torch.isnan(target)].any()
