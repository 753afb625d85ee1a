"""Sums over processes against one process with everything."""

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


def with_activation() -> nn.Module:
    made: nn.Module = timm.layers.BatchNormAct2d(3)
    return made


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.BatchNorm2d(3),
    "with an activation": with_activation,
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
}


def images() -> Tensor:
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def network(layer: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Conv2d(3, 3, 1), layer())
    nn.init.uniform_(made[1].weight)  # type: ignore[arg-type]
    return made


def learned(made: nn.Module, own: Tensor, counts: bool) -> dict[str, Tensor]:
    """Return state and gradients after one pass; the loss weighs images differently and is a mean over all."""
    with contributing(counts):
        output = made(own)
        cost = (output * own.square()).sum(dim=(1, 2, 3)) ** 2
        sums = sum_with_gradient(torch.stack([cost.sum(), cost.new_tensor(float(len(own)))]))
        loss = sums[0] / sums[1] + divided_among_workers(made[0].weight.square().sum())  # type: ignore[index]
    loss.backward()  # type: ignore[no-untyped-call]
    add_gradients(made.parameters())
    gradients = {
        f"grad {name}": value.grad.clone() for name, value in made.named_parameters() if value.grad is not None
    }
    return made.state_dict() | gradients | {"loss": loss.detach()}


def gathered(own: Tensor, counts: bool) -> dict[str, Tensor]:
    """Return the gathered rows, and the sum over workers of the gradient of a layer by a loss of all pairs of rows."""
    torch.manual_seed(2)
    layer = nn.Linear(16, 4)
    with contributing(counts):
        rows = gather_with_gradient(layer(own.flatten(2).mean(dim=1)))
        numbers = gather_with_gradient((own.flatten(1)[:, 0] * 1000).long())
        loss = (rows @ rows.T).tril().square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    add_gradients(layer.parameters())
    assert layer.weight.grad is not None
    return {"rows": rows.detach(), "numbers": numbers, "loss": loss.detach(), "gradient": layer.weight.grad}


def member(rank: int, world: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, layer in LAYERS.items():
        made = network(layer)
        synchronise_batch_norm(made)
        assert isinstance(made[1], SharedBatchNorm)  # type: ignore[index]
        found[name] = learned(made, images()[SHARES[rank]], counts=True)
    made = network(LAYERS["plain"])
    synchronise_batch_norm(made)
    found["company"] = learned(made, images()[:3] if rank == 0 else images()[4:], counts=rank == 0)
    found["gathered"] = gathered(images()[SHARES[rank]], counts=True)
    found["gathered without padding"] = gathered(images()[:3] if rank == 0 else images()[4:], counts=rank == 0)
    torch.manual_seed(rank)
    other = nn.Linear(2, 2)
    broadcast_state(other)
    return found | {"alike": other.state_dict()}


@pytest.fixture(scope="module")
def ranks() -> list[Any]:
    return together(WORLD, member)


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_shares_give_the_loss_gradients_and_statistics_of_the_whole(ranks: list[Any], name: str) -> None:
    whole = learned(network(LAYERS[name]), images(), counts=True)
    for found in ranks:
        close(found[name], whole)


def test_who_is_here_for_company_changes_nothing(ranks: list[Any]) -> None:
    whole = learned(network(LAYERS["plain"]), images()[:3], counts=True)
    for found in ranks:
        close(found["company"], whole)


def test_gathered_rows_are_in_order_and_have_the_gradient_of_the_whole(ranks: list[Any]) -> None:
    for found in ranks:
        close(found["gathered"], gathered(images(), counts=True))
        close(found["gathered without padding"], gathered(images()[:3], counts=True))


def test_all_begin_with_the_weights_of_the_first(ranks: list[Any]) -> None:
    first, other = (found["alike"] for found in ranks)
    assert all(torch.equal(first[name], other[name]) for name in first)
