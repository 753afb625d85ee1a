"""Sums over processes compared with one process that has all images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.distributed import (
    SharedBatchNorm,
    add_gradients,
    broadcast_state,
    contributing,
    divided_among_workers,
    gather_with_gradient,
    sum_with_gradient,
    synchronise_batch_norm,
)
from models.encoders.vision import timm
from tests.support.workers import together

WORLD = 2
SHARES = ([0, 1, 2], [3, 4])


def norm_with_activation() -> nn.Module:
    model: nn.Module = timm.layers.BatchNormAct2d(3)
    return model


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm2d(3),
    "with an activation": norm_with_activation,
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
}


def images() -> Tensor:
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def network(layer: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer())
    nn.init.uniform_(model[1].weight)  # type: ignore[arg-type]
    return model


def learned(model: nn.Module, share: Tensor, counts: bool) -> dict[str, Tensor]:
    """Return state and gradients after one pass; the loss weights images differently and is a mean over all."""
    with contributing(counts):
        output = model(share)
        cost = (output * share.square()).sum(dim=(1, 2, 3)) ** 2
        sums = sum_with_gradient(torch.stack([cost.sum(), cost.new_tensor(float(len(share)))]))
        loss = sums[0] / sums[1] + divided_among_workers(model[0].weight.square().sum())  # type: ignore[index]
    loss.backward()  # type: ignore[no-untyped-call]
    add_gradients(model.parameters())
    gradients = {
        f"grad {name}": value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
    }
    return model.state_dict() | gradients | {"loss": loss.detach()}


def gathered(share: Tensor, counts: bool) -> dict[str, Tensor]:
    """Return the gathered rows, and the sum over workers of the gradient of a layer by a loss of all pairs of rows."""
    torch.manual_seed(2)
    layer = nn.Linear(16, 4)
    with contributing(counts):
        rows = gather_with_gradient(layer(share.flatten(2).mean(dim=1)))
        numbers = gather_with_gradient((share.flatten(1)[:, 0] * 1000).long())
        loss = (rows @ rows.T).tril().square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    add_gradients(layer.parameters())
    assert layer.weight.grad is not None
    return {"rows": rows.detach(), "numbers": numbers, "loss": loss.detach(), "gradient": layer.weight.grad}


def member(rank: int, world: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, layer in LAYERS.items():
        model = network(layer)
        synchronise_batch_norm(model)
        assert isinstance(model[1], SharedBatchNorm)  # type: ignore[index]
        results[name] = learned(model, images()[SHARES[rank]], counts=True)
    model = network(LAYERS["plain"])
    synchronise_batch_norm(model)
    results["company"] = learned(model, images()[:3] if rank == 0 else images()[4:], counts=rank == 0)
    results["gathered"] = gathered(images()[SHARES[rank]], counts=True)
    results["gathered without padding"] = gathered(images()[:3] if rank == 0 else images()[4:], counts=rank == 0)
    torch.manual_seed(rank)
    other = nn.Linear(2, 2)
    broadcast_state(other)
    return results | {"alike": other.state_dict()}


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    return together(WORLD, member)


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_shares_give_the_loss_gradients_and_statistics_of_the_complete_batch(ranks: list[Any], name: str) -> None:
    expected = learned(network(LAYERS[name]), images(), counts=True)
    for result in ranks:
        assert_close(result[name], expected)


def test_repeated_images_of_workers_without_a_share_change_nothing(ranks: list[Any]) -> None:
    expected = learned(network(LAYERS["plain"]), images()[:3], counts=True)
    for result in ranks:
        assert_close(result["company"], expected)


def test_gathered_rows_are_in_order_and_have_the_gradient_of_the_complete_batch(ranks: list[Any]) -> None:
    for result in ranks:
        assert_close(result["gathered"], gathered(images(), counts=True))
        assert_close(result["gathered without padding"], gathered(images()[:3], counts=True))


def test_all_workers_start_with_the_weights_of_the_first(ranks: list[Any]) -> None:
    first, other = (result["alike"] for result in ranks)
    assert all(torch.equal(first[name], other[name]) for name in first)
