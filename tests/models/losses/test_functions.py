import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from models.encoders import vision  # noqa: F401  (must come before smp)
from models.losses.functions import binary_cross_entropy, cross_entropy, losses, weighted_sum
from models.settings import LossName, class_weights_problem, loss_problem, losses_of

# isort: split
from segmentation_models_pytorch import losses as smp

MASK_LOSSES = losses_of["mask"]
OVERLAPPING = [name for name in MASK_LOSSES if loss_problem([name], "mask", exclusive=False) is None]


def overlapping_case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator) * 3
    return logits, torch.randint(0, 2, (3, 4, 8, 8), generator=generator, dtype=torch.uint8)


def exclusive_case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 4, 8, 8, generator=generator) * 3
    return logits, torch.randint(0, 4, (3, 8, 8), generator=generator, dtype=torch.uint8)


def test_cross_entropy_equals_torch_with_and_without_weights() -> None:
    logits, ids = exclusive_case()
    weights = torch.tensor([0.5, 2.0, 1.0, 0.0])
    for class_weights in (None, weights):
        expected = F.cross_entropy(logits, ids.long(), weight=class_weights)
        value = losses["cross_entropy"](logits, ids, exclusive=True, class_weights=class_weights)
        torch.testing.assert_close(value, expected)


def test_binary_cross_entropy_equals_torch() -> None:
    logits, masks = overlapping_case()
    expected = F.binary_cross_entropy_with_logits(logits, masks.float())
    torch.testing.assert_close(losses["binary_cross_entropy"](logits, masks), expected)


def test_exclusive_binary_cross_entropy_is_that_of_each_softmax_channel() -> None:
    logits, ids = exclusive_case()
    truth = F.one_hot(ids.long()).permute(0, 3, 1, 2).double()
    expected = F.binary_cross_entropy(logits.double().softmax(dim=1), truth).float()
    torch.testing.assert_close(losses["binary_cross_entropy"](logits, ids, exclusive=True), expected)


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 1.2, 1.3, 2.0, 5.0, 20.0])
def test_exclusive_binary_cross_entropy_has_the_exact_gradient_at_extreme_logits(gap: float) -> None:
    logits = torch.tensor([gap, 0.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    losses["binary_cross_entropy"](logits, torch.ones(1, 1, 1, dtype=torch.long), exclusive=True).backward()
    exact = logits.detach().double().requires_grad_()
    p = exact.softmax(dim=1).flatten()
    (-(1 - p[0]).log() - p[1].log() - (1 - p[2]).log()).div(3).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


def test_exclusive_binary_cross_entropy_keeps_its_value_where_softmax_rounds_to_one() -> None:
    logits = torch.tensor([60.0, 0.0]).view(1, 2, 1, 1)
    loss_of_error = losses["binary_cross_entropy"](logits, torch.ones(1, 1, 1, dtype=torch.long), exclusive=True)
    assert loss_of_error.item() == pytest.approx(60.0)


SMP: dict[LossName, Callable[[str], torch.nn.Module]] = {
    # smp defines Dice as overlap / (overlap + errors / 2): its smoothing of 0.5 above and below is our 1
    "dice": lambda mode: smp.DiceLoss(mode, smooth=0.5),
    "log_dice": lambda mode: smp.DiceLoss(mode, smooth=0.5, log_loss=True),
    "jaccard": lambda mode: smp.JaccardLoss(mode, smooth=1.0),
    "tversky": lambda mode: smp.TverskyLoss(mode, smooth=1.0, alpha=0.3, beta=0.7),
    "focal": lambda mode: smp.FocalLoss(mode, gamma=2.0),
}


@pytest.mark.parametrize("name", SMP)
def test_overlapping_loss_equals_smp(name: LossName) -> None:
    logits, masks = overlapping_case()
    torch.testing.assert_close(losses[name](logits, masks), SMP[name]("multilabel")(logits, masks.float()))


@pytest.mark.parametrize("name", ["dice", "log_dice", "jaccard", "tversky"])
def test_exclusive_overlap_loss_is_that_of_the_foreground_channels(name: LossName) -> None:
    logits, ids = exclusive_case()
    masks = F.one_hot(ids.long()).permute(0, 3, 1, 2)[:, 1:]
    foreground = logits.softmax(dim=1)[:, 1:].logit()
    value = losses[name](logits, ids, exclusive=True)
    torch.testing.assert_close(value, SMP[name]("multilabel")(foreground, masks.float()))


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_cross_entropy_equals_torch(smoothing: float) -> None:
    logits, ids = exclusive_case()
    for class_weights in (None, torch.tensor([0.5, 2.0, 1.0, 0.0])):
        expected = F.cross_entropy(logits, ids.long(), weight=class_weights, label_smoothing=smoothing)
        value = cross_entropy(logits, ids, class_weights=class_weights, label_smoothing=smoothing)
        torch.testing.assert_close(value, expected)


def test_smoothing_ignores_pixels_without_a_label() -> None:
    logits, ids = exclusive_case()
    ids[:, 2:5] = 255
    expected = F.cross_entropy(logits, ids.long(), label_smoothing=0.2, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, ids, label_smoothing=0.2), expected)


def test_smoothed_binary_cross_entropy_has_targets_between_the_labels() -> None:
    logits, masks = overlapping_case()
    expected = F.binary_cross_entropy_with_logits(logits, masks * 0.8 + 0.1)
    torch.testing.assert_close(binary_cross_entropy(logits, masks, label_smoothing=0.2), expected)
    logits, ids = exclusive_case()
    truth = F.one_hot(ids.long()).permute(0, 3, 1, 2).double() * 0.8 + 0.1
    channels = F.binary_cross_entropy(logits.double().softmax(dim=1), truth).float()
    torch.testing.assert_close(binary_cross_entropy(logits, ids, exclusive=True, label_smoothing=0.2), channels)


def test_smoothing_applies_to_cross_entropies_only() -> None:
    logits, masks = overlapping_case()
    plain = weighted_sum({"dice": 1.0}, logits, masks)
    value = weighted_sum({"dice": 1.0, "binary_cross_entropy": 2.0}, logits, masks, label_smoothing=0.2)
    torch.testing.assert_close(value, plain + 2 * binary_cross_entropy(logits, masks, label_smoothing=0.2))


def test_focal_tversky_is_a_power_of_each_classs_tversky_loss() -> None:
    logits, masks = overlapping_case()
    by_class = [losses["tversky"](logits[:, [k]], masks[:, [k]]) for k in range(logits.shape[1])]
    expected = torch.stack([cost**0.75 for cost in by_class]).mean()
    torch.testing.assert_close(losses["focal_tversky"](logits, masks), expected)


def erosion(plane: np.ndarray) -> np.ndarray:
    cross = ndimage.generate_binary_structure(2, 1)
    return ndimage.grey_erosion(plane, footprint=cross, mode="nearest")


def opening(plane: np.ndarray) -> np.ndarray:
    return ndimage.grey_dilation(erosion(plane), size=(3, 3), mode="nearest")


def skeleton(plane: np.ndarray) -> np.ndarray:
    """Return the soft skeleton after algorithm 1 of Shit et al. (2021)."""
    lines = np.maximum(plane - opening(plane), 0)
    for _ in range(10):
        plane = erosion(plane)
        removed = np.maximum(plane - opening(plane), 0)
        lines = lines + np.maximum(removed - lines * removed, 0)
    return lines


def test_soft_centre_line_dice_equals_its_algorithm() -> None:
    random = np.random.default_rng(0)
    masks = np.stack([ndimage.gaussian_filter(random.normal(size=(2, 40, 50)), (0, 3, 3)) > 0.02 for _ in range(3)])
    logits = ndimage.gaussian_filter(random.normal(size=(3, 2, 40, 50)), (0, 0, 2, 2)) * 20
    p = 1 / (1 + np.exp(-logits))
    costs = []
    for k in range(2):
        lines = [np.stack([skeleton(plane) for plane in planes[:, k].astype(float)]) for planes in (p, masks)]
        precision = ((lines[0] * masks[:, k]).sum() + 1) / (lines[0].sum() + 1)
        sensitivity = ((lines[1] * p[:, k]).sum() + 1) / (lines[1].sum() + 1)
        costs.append(1 - 2 * precision * sensitivity / (precision + sensitivity))
    value = losses["cldice"](torch.tensor(logits), torch.tensor(masks.astype(np.uint8)))
    assert value.item() == pytest.approx(np.mean(costs), rel=1e-4)


def test_a_broken_line_costs_more_centre_line_dice_than_a_thinner_one() -> None:
    line = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    line[..., 14:18, :] = 1
    thinner, broken = line.clone(), line.clone()
    thinner[..., 14, :], thinner[..., 17, :], broken[..., 8:24] = 0, 0, 0
    costs = [losses["cldice"]((mask.float() - 0.5) * 40, line).item() for mask in (line, thinner, broken)]
    assert costs[0] == pytest.approx(0, abs=1e-3)
    assert costs[1] < 0.1 < costs[2]


def test_boundary_loss_is_the_mean_of_probability_times_signed_distance() -> None:
    logits, masks = overlapping_case()
    masks[0, 1], masks[1, 2] = 0, 1  # an empty and a full mask have no boundary
    cost = np.zeros(masks.shape)
    for index in np.ndindex(3, 4):
        mask = masks.numpy()[index].astype(bool)
        if mask.any() and not mask.all():
            inner, outer = np.argwhere(mask), np.argwhere(~mask)
            for pixel in np.ndindex(mask.shape):
                other = outer if mask[pixel] else inner
                distance = np.sqrt(((other - pixel) ** 2).sum(axis=1)).min()
                cost[(*index, *pixel)] = 1 - distance if mask[pixel] else distance
    expected = (logits.sigmoid().double().numpy() * cost).mean()
    assert losses["boundary"](logits, masks).item() == pytest.approx(expected, rel=1e-5)


def test_exclusive_focal_loss_equals_its_formula() -> None:
    logits, ids = exclusive_case()
    p = logits.softmax(dim=1).gather(1, ids.long().unsqueeze(1))
    torch.testing.assert_close(losses["focal"](logits, ids, exclusive=True), (-((1 - p) ** 2) * p.log()).mean())


def test_mse_and_l1_equal_torch() -> None:
    logits, _ = overlapping_case()
    images = torch.rand_like(logits)
    torch.testing.assert_close(losses["mse"](logits, images), F.mse_loss(logits, images))
    torch.testing.assert_close(losses["l1"](logits, images), F.l1_loss(logits, images))


@pytest.mark.parametrize("name", ["binary_cross_entropy", "focal", "mse", "l1"])
def test_unknown_entries_are_ignored(name: LossName) -> None:
    logits, target = torch.randn(4, 3), torch.tensor([[0.0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]])
    known = torch.tensor([[True, False, True], [False] * 3, [True] * 3, [True, True, False]])
    value = losses[name](logits, target.masked_fill(~known, torch.nan))
    expected = losses[name](logits[known].unsqueeze(1), target[known].unsqueeze(1))
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_class_of_weight_0_is_excluded(name: LossName) -> None:
    logits, masks = overlapping_case()
    value = losses[name](logits, masks, class_weights=torch.tensor([2.0, 0.0, 2.0, 2.0]))
    included = [0, 2, 3]
    torch.testing.assert_close(value, losses[name](logits[:, included], masks[:, included]))


@pytest.mark.parametrize("name", ["dice", "log_dice", "jaccard", "tversky"])
def test_exclusive_class_weights_skip_the_background_in_overlap_losses(name: LossName) -> None:
    logits, ids = exclusive_case()
    plain = losses[name](logits, ids, exclusive=True)
    weighted = losses[name](logits, ids, exclusive=True, class_weights=torch.tensor([9.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(weighted, plain)


@pytest.mark.parametrize(
    ("name", "exclusive"), [(name, True) for name in MASK_LOSSES] + [(name, False) for name in OVERLAPPING]
)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("present", [False, True])
def test_loss_and_gradient_are_finite_at_extreme_logits_and_absent_classes(
    name: LossName, exclusive: bool, scale: float, present: bool
) -> None:
    logits, masks = exclusive_case() if exclusive else overlapping_case()
    logits = (logits.sign() * scale).requires_grad_()
    loss = losses[name](logits, masks if present else torch.zeros_like(masks), exclusive=exclusive)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["dice", "log_dice", "jaccard", "tversky"])
def test_an_absent_class_that_is_not_predicted_costs_nothing(name: LossName) -> None:
    loss = losses[name](torch.full((2, 1, 8, 8), -50.0), torch.zeros(2, 1, 8, 8))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", OVERLAPPING)
def test_bfloat16_logits_are_summed_in_float32(name: LossName) -> None:
    logits, masks = overlapping_case()
    short = logits.bfloat16()
    value = losses[name](short, masks)
    assert value.dtype == torch.float32
    assert torch.equal(value, losses[name](short.float(), masks))


def test_cross_entropy_of_overlapping_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: exclusive classes"):
        losses["cross_entropy"](*overlapping_case(), exclusive=False)


def test_weighted_sum_does_not_depend_on_the_order_of_the_terms() -> None:
    logits, masks = overlapping_case()
    terms: dict[LossName, float] = {"dice": 0.3, "binary_cross_entropy": 1.7, "focal": 0.0, "jaccard": 0.1}
    value = weighted_sum(terms, logits, masks)
    torch.testing.assert_close(value, sum((w * losses[n](logits, masks) for n, w in terms.items()), torch.zeros(())))
    assert torch.equal(value, weighted_sum(dict(reversed(terms.items())), logits, masks))


def test_no_loss_needs_an_operation_without_a_deterministic_implementation() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        for name in MASK_LOSSES:
            logits, ids = exclusive_case()
            losses[name](logits.requires_grad_(), ids, exclusive=True).backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_every_loss_a_target_allows_exists() -> None:
    assert {name for names in losses_of.values() for name in names} == set(losses)


def test_an_unsuitable_loss_is_refused_with_the_allowed_ones() -> None:
    problem = loss_problem(["dice", "cross_entropy"], "mask", exclusive=False)
    assert problem is not None
    assert problem.startswith("loss cross_entropy does not fit mask of overlapping classes; allowed: binary_")
    assert "cross_entropy," not in problem.split("allowed: ")[1].replace("binary_cross_entropy,", "")
    assert loss_problem(["cross_entropy"], "mask", exclusive=True) is None
    assert loss_problem(["dice"], "image", exclusive=False) is not None
    assert loss_problem(["mse"], "mask", exclusive=False) is not None


def test_class_weights_of_unknown_classes_or_all_zero_are_refused() -> None:
    names = ("lung", "opacity")
    assert "allowed: lung, opacity" in str(class_weights_problem({"lungs": 1.0}, names, exclusive=False))
    assert class_weights_problem({"background": 0.1}, names, exclusive=True) is None
    assert class_weights_problem({"background": 0.1}, names, exclusive=False) is not None
    assert class_weights_problem({"lung": 0.0, "opacity": 0.0}, names, exclusive=False) is not None


def test_the_rules_of_losses_do_not_import_torch() -> None:
    code = "import sys, json, models.settings; print(json.dumps(sorted(sys.modules)))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert "torch" not in json.loads(done.stdout)
