"""Losses of labels of whole images, against formulas in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax

from models.tasks.weak_labels.losses import absent_masks, class_logits, presence_loss, size_penalty

Array = NDArray[np.float64]
SHAPE = (3, 2, 5, 7)
PRESENT = np.array([[1, 0], [np.nan, 1], [1, 1]])


def random_logits(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.random.default_rng(seed).normal(scale=2, size=shape)


def tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(values).float()


def test_the_log_odds_of_exclusive_classes_give_their_softmax() -> None:
    logits = random_logits(shape=(3, 4, 5, 7))
    odds = class_logits(tensor(logits), exclusive=True)
    np.testing.assert_allclose(odds.sigmoid().numpy(), softmax(logits, axis=1)[:, 1:], rtol=1e-5, atol=1e-7)


def test_logits_of_overlapping_classes_are_unchanged() -> None:
    logits = tensor(random_logits())
    assert torch.equal(class_logits(logits, exclusive=False), logits)


def test_absent_classes_are_annotated_everywhere_and_others_nowhere() -> None:
    masks = absent_masks(torch.from_numpy(PRESENT), torch.Size(SHAPE)).numpy()
    expected = np.where(PRESENT == 0, 0, 255)[:, :, None, None]
    np.testing.assert_array_equal(masks, np.broadcast_to(expected, SHAPE))


def test_the_loss_of_present_classes_is_the_cross_entropy_of_the_smooth_maximum() -> None:
    logits = random_logits()
    maximum = logsumexp(5 * logits, axis=(2, 3), b=1 / 35) / 5
    expected = -np.log(expit(maximum))[PRESENT == 1].mean()
    assert float(presence_loss(tensor(logits), tensor(PRESENT))) == pytest.approx(expected, rel=1e-5)


def test_the_smooth_maximum_lies_between_mean_and_maximum() -> None:
    logits = random_logits(shape=(1, 1, 5, 7))
    present = torch.ones(1, 1)
    loss = float(presence_loss(tensor(logits), present))
    assert -np.log(expit(logits.max())) < loss < -np.log(expit(logits.mean()))


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])
def test_areas_outside_of_their_range_have_a_quadratic_penalty(scale: float) -> None:
    logits = random_logits()
    areas = scale * np.array([[0.2, 0.25], [0.3, 0.33]])
    low, high = 0.9 * areas[:, 0], 1.1 * areas[:, 1]
    area = expit(logits).mean(axis=(2, 3))
    nearest = np.clip(area, low, high)
    outside = (area - nearest) / (area + nearest)
    expected = (outside**2)[PRESENT == 1].mean()
    assert float(size_penalty(tensor(logits), tensor(PRESENT), tensor(areas))) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("area", [1e-5, 0.002, 0.1, 0.9])
@pytest.mark.parametrize("logit", [-30.0, -8.0, -2.0, 0.0, 3.0, 30.0])
def test_the_penalty_and_its_gradient_are_bounded_for_any_size_of_class(area: float, logit: float) -> None:
    logits = torch.full((1, 1, 32, 32), logit, requires_grad=True)
    loss = size_penalty(logits, torch.ones(1, 1), torch.tensor([[area, area]]))
    loss.backward()
    assert 0 <= loss.item() <= 1
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum().item() <= 0.4


def test_an_area_that_is_as_many_times_too_large_has_the_same_penalty() -> None:
    penalties = []
    for area in (0.004, 0.04):
        logits = torch.logit(torch.full((1, 1, 8, 8), 10 * area, dtype=torch.float64))
        penalties.append(float(size_penalty(logits, torch.ones(1, 1), torch.tensor([[area, area]]))))
    assert penalties[0] == pytest.approx(penalties[1], rel=1e-4)
    assert penalties[0] > 0.5


def test_an_area_in_the_range_has_no_penalty_and_no_gradient() -> None:
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = size_penalty(logits, torch.ones(1, 1), torch.tensor([[0.5, 0.5]]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_classes_that_no_mask_shows_have_no_penalty() -> None:
    logits = tensor(random_logits()).requires_grad_()
    areas = torch.tensor([[float("nan")] * 2, [1e-3, 1e-3]])
    loss = size_penalty(logits, tensor(PRESENT), areas)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert not logits.grad[:, 0].any()
    assert logits.grad[:, 1].any()


@pytest.mark.parametrize("exclusive", [False, True])
def test_gradients_are_those_of_the_formulas(exclusive: bool) -> None:
    shape = (3, 2 + exclusive, 3, 4)
    logits = torch.from_numpy(random_logits(shape=shape)).requires_grad_()
    present, areas = torch.from_numpy(PRESENT), torch.tensor([[0.01, 0.02], [0.9, 0.95]])

    def loss(values: torch.Tensor) -> torch.Tensor:
        scores = (
            values
            if not exclusive
            else values[:, 1:] - torch.stack([values[:, [0, 2]].logsumexp(1), values[:, [0, 1]].logsumexp(1)], dim=1)
        )
        return presence_loss(scores, present) + size_penalty(scores, present, areas.double())

    assert torch.autograd.gradcheck(loss, (logits,), eps=1e-5, atol=1e-3)
    expected = torch.autograd.grad(loss(logits), logits)[0]
    own = logits.detach().float().requires_grad_()
    scores = class_logits(own, exclusive=exclusive)
    (presence_loss(scores, present.float()) + size_penalty(scores, present.float(), areas)).backward()
    assert own.grad is not None
    np.testing.assert_allclose(own.grad.numpy(), expected.numpy(), rtol=1e-3, atol=1e-6)
