"""Weight averaging compared with torch."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from models.architectures.parts import NetworkParts
from models.network import Network
from models.optim.average import Average, MovingAverage, momentum_copy, refresh_statistics


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 1, 9, 9, generator=generator) for _ in range(count)]


def move_weights(model: nn.Module, steps: int) -> None:
    """Move every parameter by random steps, as in training."""
    generator = torch.Generator().manual_seed(steps)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_averaged_weights_and_statistics_equal_torch() -> None:
    model = network()
    reference, average = AveragedModel(model), Average()
    for step in range(4):
        move_weights(model, step)
        reference.update_parameters(model)
        average.add(model)
    update_bn(batches(), reference)
    average.put_into(model)
    refresh_statistics(model, batches())

    expected = {name.removeprefix("module."): tensor for name, tensor in reference.state_dict().items()}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_statistics_of_frozen_layers_are_unchanged() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> "Frozen":
            super().train(mode)
            self[1].eval()
            return self

    model = Frozen(*network())
    before = model[1].running_mean.clone()
    refresh_statistics(model, batches())

    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(model[4].running_mean, torch.zeros(4))


def test_no_batch_is_computed_without_trained_batch_norm() -> None:
    class Frozen(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> "Frozen":
            return super().train(False)

    for model in (nn.Conv2d(1, 4, 3), nn.Sequential(Frozen(1))):
        images = iter(batches(3))
        refresh_statistics(model, images)
        assert len(list(images)) == 3


def test_statistics_are_updated_as_before_after_the_average() -> None:
    model = network()
    refresh_statistics(model, batches())

    assert [layer.momentum for layer in model if isinstance(layer, nn.BatchNorm2d)] == [0.1, 0.1]


def test_a_moving_average_equals_its_formula() -> None:
    model, average = network(), MovingAverage(0.3)
    expected: dict[str, Tensor] = {}
    for step in range(8):
        move_weights(model, step)
        model(batches()[step % 3])  # changes the statistics
        average.add(model)
        decay = min(0.3, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            is_first = not step or not tensor.is_floating_point()
            expected[name] = tensor.clone() if is_first else decay * expected[name] + (1 - decay) * tensor
    assert average.count == 8
    for name, tensor in average.weights.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_the_average_is_in_the_network_only_during_validation() -> None:
    model, average = network(), MovingAverage(0.9)
    for step in range(3):
        move_weights(model, step)
        average.add(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.in_validation(model):
        assert all(torch.equal(tensor, average.weights[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_a_momentum_copy_is_not_trained_and_uses_its_own_statistics() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    parts = NetworkParts(encoder=nn.Identity(), decoder=nn.Identity(), head=head)
    network = Network(parts, mean=[0.0], std=[1.0], stages=[])
    copied = momentum_copy(network)
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    images = torch.randn(6, 1, 2, 2)
    torch.testing.assert_close(copied.head(images)[:2], copied.head(images[:2]))
    network.head(images)  # in training mode, which changes the statistics of the network only
    name = "head.2.running_mean"
    assert not torch.equal(network.state_dict()[name], copied.state_dict()[name])
