import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, PolynomialLR, ReduceLROnPlateau

from models.optim.optimizers import flatten_state, make_optimizer, make_schedule, restore_state, squared_kernels
from models.settings import OptimizerSettings, ScheduleSettings

OPTIMIZERS = get_args(OptimizerSettings.model_fields["name"].annotation)
SCHEDULES = get_args(ScheduleSettings.model_fields["name"].annotation)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def update(net: nn.Module, optimizer: Optimizer, number: int) -> None:
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    net(images).square().mean().backward()
    optimizer.step()


def settings_of(name: str) -> OptimizerSettings:
    momentum = 0.9 if name in ("sgd", "rmsprop") else 0.0
    return OptimizerSettings.model_validate({"name": name, "lr": 0.01, "weight_decay": 0.1, "momentum": momentum})


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_restored_from_tensors_and_json_ends_bitwise_equal(name: str, schedule: str, tmp_path: Path) -> None:
    schedule_settings = ScheduleSettings.model_validate({"name": schedule, "patience": 1})
    uninterrupted = network()
    optimizer = make_optimizer(settings_of(name), uninterrupted.parameters())
    rates = make_schedule(schedule_settings, optimizer, 12)
    for number in range(12):
        update(uninterrupted, optimizer, number)
        rates.after_update()
        rates.after_epoch(1.0)
        if number == 5:
            tensors, numbers = flatten_state(optimizer)
            save_file(tensors, tmp_path / "optimizer.safetensors")
            saved = json.dumps({"optimizer": numbers, "schedule": rates.state_dict()}, allow_nan=False)
            weights = {key: value.clone() for key, value in uninterrupted.state_dict().items()}

    resumed = network()
    resumed.load_state_dict(weights)
    optimizer = make_optimizer(settings_of(name), resumed.parameters())
    rates = make_schedule(schedule_settings, optimizer, 12)
    state = json.loads(saved)
    restore_state(optimizer, load_file(tmp_path / "optimizer.safetensors"), state["optimizer"])
    rates.load_state_dict(state["schedule"])
    for number in range(6, 12):
        update(resumed, optimizer, number)
        rates.after_update()
        rates.after_epoch(1.0)
    for key, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_flattened_state_is_restored_unchanged(name: str) -> None:
    net = network()
    optimizer = make_optimizer(settings_of(name), net.parameters())
    update(net, optimizer, 0)
    tensors, numbers = flatten_state(optimizer)
    again = make_optimizer(settings_of(name), network().parameters())
    restore_state(again, tensors, json.loads(json.dumps(numbers)))
    restored, restored_numbers = flatten_state(again)
    assert restored_numbers == numbers
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(restored[key], tensors[key]) for key in tensors)


def test_a_restored_optimizer_shares_no_memory_with_the_given_state() -> None:
    net = network()
    optimizer = make_optimizer(settings_of("adam"), net.parameters())
    update(net, optimizer, 0)
    tensors, numbers = flatten_state(optimizer)
    before = tensors["0.exp_avg"].clone()
    other = network()
    again = make_optimizer(settings_of("adam"), other.parameters())
    restore_state(again, tensors, numbers)
    update(other, again, 1)
    assert torch.equal(tensors["0.exp_avg"], before)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_have_no_state_and_may_be_added_later(name: str) -> None:
    net = network()
    net[0].requires_grad_(False)
    optimizer = make_optimizer(settings_of(name), net.parameters())
    update(net, optimizer, 0)
    tensors, numbers = flatten_state(optimizer)
    assert not [key for key in tensors if key.startswith("0.")]
    again = make_optimizer(settings_of(name), net.parameters())
    restore_state(again, tensors, numbers)
    net[0].requires_grad_(True)
    before = net[0].weight.detach().clone()
    update(net, again, 1)
    assert not torch.equal(net[0].weight, before)


def test_a_state_of_another_number_of_parameters_is_refused() -> None:
    net = network()
    optimizer = make_optimizer(settings_of("adam"), net.parameters())
    update(net, optimizer, 0)
    with pytest.raises(ValueError, match="doesn't match the size"):
        restore_state(make_optimizer(settings_of("adam"), net[0].parameters()), *flatten_state(optimizer))


def test_settings_are_passed_to_the_optimizer() -> None:
    group = make_optimizer(settings_of("rmsprop"), network().parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.01, 0.1, 0.9)


@pytest.mark.parametrize("alpha", [0.99, 0.9])
def test_rmsprop_divides_by_the_root_of_a_moving_mean_of_squares(alpha: float) -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    settings = OptimizerSettings(name="rmsprop", lr=0.01, alpha=alpha)
    optimizer = make_optimizer(settings, [weight])
    expected, mean = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(5):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
        gradient = 2 * expected
        mean = alpha * mean + (1 - alpha) * gradient**2
        expected = expected - 0.01 * gradient / (np.sqrt(mean) + 1e-8)
        np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-5)


def plain_optimizer() -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


REFERENCES = {
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, T_max=20),
    "poly": lambda optimizer: PolynomialLR(optimizer, total_iters=20, power=0.9),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_rates_by_update_equal_torch(name: str) -> None:
    ours, theirs = plain_optimizer(), plain_optimizer()
    schedule = make_schedule(ScheduleSettings.model_validate({"name": name}), ours, 20)
    reference: LRScheduler = REFERENCES[name](theirs)
    for _ in range(20):
        ours.step()
        theirs.step()
        schedule.after_update()
        schedule.after_epoch(math.nan)
        reference.step()
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], abs=1e-9)
    assert ours.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_rates_on_a_plateau_equal_torch() -> None:
    ours, theirs = plain_optimizer(), plain_optimizer()
    schedule = make_schedule(ScheduleSettings(name="plateau", factor=0.5, patience=2), ours, 100)
    reference = ReduceLROnPlateau(theirs, mode="min", factor=0.5, patience=2)
    for loss in [1.0, 0.8, 0.9, 0.9, 0.9, 0.9, 0.7, 0.7, 0.7, 0.7, 0.7]:
        schedule.after_update()
        schedule.after_epoch(loss)
        reference.step(loss)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert ours.param_groups[0]["lr"] < 0.1


@pytest.mark.parametrize("name", ["none", "plateau"])
def test_without_validation_the_rate_is_constant(name: str) -> None:
    optimizer = plain_optimizer()
    schedule = make_schedule(ScheduleSettings.model_validate({"name": name, "patience": 1}), optimizer, 5)
    for _ in range(9):
        optimizer.step()
        schedule.after_update()
        schedule.after_epoch(math.nan)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("name", ["cosine", "poly"])
def test_a_rate_is_constant_after_the_last_update(name: str) -> None:
    optimizer = plain_optimizer()
    schedule = make_schedule(ScheduleSettings.model_validate({"name": name}), optimizer, 3)
    for _ in range(5):
        optimizer.step()
        schedule.after_update()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", get_args(ScheduleSettings.model_fields["name"].annotation))
def test_a_stopped_schedule_does_not_change_the_rate(name: str) -> None:
    optimizer = plain_optimizer()
    schedule = make_schedule(ScheduleSettings.model_validate({"name": name, "patience": 1}), optimizer, 20)
    schedule.stop()
    optimizer.param_groups[0]["lr"] = 0.07
    for _ in range(9):
        optimizer.step()
        schedule.after_update()
        schedule.after_epoch(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.07


def test_squared_kernels_are_those_of_trained_convolutions() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 2, 2), nn.Conv2d(2, 1, 1))
    network[3].requires_grad_(False)
    expected = sum(float(network[number].weight.detach().square().sum()) for number in (0, 2))

    assert float(squared_kernels(network).detach()) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_betas_are_passed_to_the_optimizer(name: str) -> None:
    settings = OptimizerSettings.model_validate({"name": name, "betas": [0.5, 0.75]})
    assert make_optimizer(settings, network().parameters()).param_groups[0]["betas"] == (0.5, 0.75)


@pytest.mark.parametrize("name", ["none", "cosine", "poly"])
def test_the_rate_rises_linearly_during_warm_up_and_then_follows_the_schedule(name: str) -> None:
    total, warmup = 40, 10
    curves = {"none": lambda _: 1.0, "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
              "poly": lambda share: (1 - share) ** 0.9}  # fmt: skip
    optimizer = make_optimizer(OptimizerSettings(lr=0.5), network().parameters())
    rates = make_schedule(ScheduleSettings.model_validate({"name": name, "warmup": 0.25}), optimizer, total)
    actual = []
    for _ in range(total):
        actual.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.after_update()
    expected = [0.5 * (update + 1) / warmup for update in range(warmup)]
    expected += [0.5 * curves[name]((update - warmup) / (total - warmup)) for update in range(warmup, total)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_plateau_has_no_warm_up() -> None:
    with pytest.raises(ValueError, match=r"warmup is 0\.1 under plateau; allowed: 0; remove it, or choose cosine"):
        ScheduleSettings(name="plateau", warmup=0.1)


def test_betas_of_other_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"betas is \[0\.5, 0\.9\] under sgd; allowed: with adam or adamw"):
        OptimizerSettings(name="sgd", betas=(0.5, 0.9))
