"""What all methods of consistency share: the weight, the order of both kinds of images, where gradients go."""

import math
from dataclasses import replace

import pytest
import torch

from models.tasks.base import ramp_up
from models.tasks.consistency.base import UnlabelledViews
from tests.support.consistency import METHODS, batch, companions, network, task

RAMP_UP = {0: math.exp(-5), 50: math.exp(-1.25), 99: math.exp(-5e-4), 100: 1, 500: 1}


@pytest.mark.parametrize(("update", "expected"), RAMP_UP.items())
def test_the_ramp_up_is_that_of_laine_and_aila(update: int, expected: float) -> None:
    assert ramp_up(update, 100) == pytest.approx(expected)


def test_without_ramp_up_the_weight_is_full_from_the_first_update_on() -> None:
    assert ramp_up(0, 0) == 1


@pytest.mark.parametrize(
    ("method", "block", "expected"),
    [
        ("mean_teacher", {}, 3 * math.exp(-5 * 0.75**2)),  # 25 of the first 20 % of 500 updates
        ("mean_teacher", {"ramp_up": 0.0}, 3.0),
        ("fixmatch", {}, 3.0),
        ("fixmatch", {"ramp_up": 0.5}, 3 * math.exp(-5 * 0.9**2)),
    ],
)
def test_the_factor_is_the_weight_times_the_ramp_up(method: str, block: dict[str, float], expected: float) -> None:
    made = task(method, weight=3.0, **block)
    assert made.factor(batch(made, update=25, updates=500)) == pytest.approx(expected)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_that_of_masks_plus_the_weighted_one_of_images_without_masks(method: str, cutmix: float) -> None:
    first, made = network(), task(method, weight=0.7, cutmix=cutmix, ramp_up=0.0)
    companions(made, first)
    given = batch(made)
    labelled = made.labelled_loss(first, given)
    unlabelled = made.unlabelled_loss(first, UnlabelledViews.of(given))
    expected = (labelled + 0.7 * unlabelled) / (2 if method == "unimatch" else 1)
    made, again = task(method, weight=0.7, cutmix=cutmix, ramp_up=0.0), network()
    companions(made, again)
    torch.testing.assert_close(made.loss(again, given), expected)


@pytest.mark.parametrize("method", METHODS)
def test_without_images_without_masks_the_loss_is_that_of_masks(method: str) -> None:
    first, made = network(), task(method)
    companions(made, first)
    given = replace(batch(made), unlabelled=None, unlabelled_views=(), pasted=None, unlabelled_keys=())
    torch.testing.assert_close(made.loss(first, given), made.labelled_loss(network(), given))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_images_without_masks_change_the_gradient_of_every_parameter(method: str, precision: torch.dtype) -> None:
    gradients = []
    for weight in (0.0, 1.0):
        first, made = network(), task(method, weight=weight, ramp_up=0.0, **_confident(method))
        companions(made, first)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = made.loss(first, batch(made))
        assert loss.dtype == torch.float32
        loss.backward()
        scale = 2.0 if method == "unimatch" else 1.0
        gradients.append([scale * parameter.grad for parameter in first.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(list(network().parameters()))
    assert not any(torch.equal(without, with_images) for without, with_images in zip(*gradients, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_weak_views_and_partners_have_no_gradient_of_their_own(method: str) -> None:
    """Strong views have, and the weak view of UniMatch has one through its perturbed features."""
    first, made = network(), task(method, cutmix=1.0, **_confident(method))
    companions(made, first)
    given = batch(made)
    views = tuple(view.clone().requires_grad_() for view in given.unlabelled_views)
    made.loss(first, replace(given, unlabelled_views=views)).backward()
    weak, *strong, partner = (view.grad is not None and bool(view.grad.any()) for view in views)
    assert weak == (method == "unimatch")
    assert all(strong)
    assert not partner


@pytest.mark.parametrize("method", METHODS)
def test_the_network_trains_again_after_partners_were_predicted_in_evaluation_mode(method: str) -> None:
    first, made = network(), task(method, cutmix=1.0)
    modules = companions(made, first)
    made.loss(first, batch(made))
    assert first.training
    assert [module.training for name, module in modules.items()] == [name != "teacher" for name in modules]


def test_a_pasted_region_has_the_prediction_of_the_partner() -> None:
    made = task("unimatch")
    views = UnlabelledViews.of(batch(made))
    weak, partner = torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)
    first, second = views.mixed(weak, partner)
    assert torch.equal(first, views.pasted[0].expand_as(first).float())
    assert torch.equal(second, views.pasted[1].expand_as(second).float())
    assert not torch.equal(first, second)


def _confident(method: str) -> dict[str, float]:
    return {"confidence": 0.0} if method in ("fixmatch", "unimatch") else {}
