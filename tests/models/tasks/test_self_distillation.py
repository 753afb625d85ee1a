"""Self-distillation compared with its formulas: targets, predictions, schedule of the moving average, local views."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.architectures.heads import ProjectionHead
from models.architectures.parts import NetworkParts
from models.network import Network
from models.task_settings.views import SelfDistillationSettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs
from models.tasks.self_distillation import SelfDistillation, prediction_loss

DIMENSIONS = 6


class Encoder(torch.nn.Conv2d):
    """One feature map."""

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [super().forward(images).relu()]


def network() -> Network:
    torch.manual_seed(0)
    parts = NetworkParts(encoder=Encoder(1, 8, 3), decoder=None, head=ProjectionHead(8, 16, DIMENSIONS))
    return Network(parts, mean=[0.5], std=[0.5], stages=[["weight"]])


def task(**settings: float) -> SelfDistillation:
    chosen = SelfDistillationSettings.model_validate({"projection": DIMENSIONS, "hidden": 12, **settings})
    distillation = make_task(chosen, Outputs(names=("grey",)))
    assert isinstance(distillation, SelfDistillation)
    return distillation


def batch(images: int = 5, views: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    drawn = tuple(torch.rand(images, 1, 8, 8, generator=generator) for _ in range(views))
    return Batch(images=drawn[0], target=drawn[0], views=drawn)


def vectors(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, DIMENSIONS, generator=torch.Generator().manual_seed(seed))
    return F.normalize(values, dim=-1)


def test_the_loss_of_two_views_is_half_of_both_directions_of_equation_2_of_byol() -> None:
    predictions, targets = vectors(4, 2, seed=1), vectors(4, 2, seed=2)
    q, z = predictions.numpy(), targets.numpy()
    both = [sum(np.sum((q[i, view] - z[i, 1 - view]) ** 2) for view in range(2)) for i in range(4)]
    assert prediction_loss(predictions, targets).item() == pytest.approx(np.mean(both) / 2, rel=1e-5)


def test_local_views_predict_both_targets_and_are_no_targets() -> None:
    predictions, targets = vectors(3, 4, seed=1), vectors(3, 2, seed=2)
    q, z = predictions.numpy(), targets.numpy()
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    costs = [2 - 2 * q[i, view] @ z[i, other] for i in range(3) for view, other in pairs]
    assert prediction_loss(predictions, targets).item() == pytest.approx(np.mean(costs), rel=1e-5)


def test_the_loss_compares_predictions_of_the_network_with_targets_of_its_momentum_copy() -> None:
    model, distillation = network(), task()
    companions = distillation.companions(model)
    with torch.no_grad():
        for parameter in companions["momentum_network"].module.parameters():
            parameter.mul_(1.5)
    views = batch().views
    loss = distillation.loss(model, batch())
    outputs = model(torch.cat(views))
    first, second = F.normalize(companions["predictor"].module(outputs), dim=1).split(5)
    copied = companions["momentum_network"].module
    target_first, target_second = (F.normalize(copied(view), dim=1) for view in views)
    expected = (2 - 2 * (first * target_second).sum(1) + 2 - 2 * (second * target_first).sum(1)).mean() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_gradients_reach_network_and_predictor_and_not_the_targets() -> None:
    model, distillation = network(), task()
    companions = distillation.companions(model)
    distillation.loss(model, batch()).backward()
    for module in (model, companions["predictor"].module):
        assert all(parameter.grad is not None for parameter in module.parameters())
    assert all(parameter.grad is None for parameter in companions["momentum_network"].module.parameters())
    assert {name: companion.trained for name, companion in companions.items()} == {
        "momentum_network": "never", "predictor": "jointly",
    }  # fmt: skip


@pytest.mark.parametrize("updates", [1, 40, 200, 500, 1000])
def test_the_decay_of_the_moving_average_rises_to_1_along_a_cosine(updates: int) -> None:
    model, distillation = network(), task(momentum=0.9)
    copied = distillation.companions(model)["momentum_network"].module
    before = copied.get_parameter("encoder.weight").clone()
    with torch.no_grad():
        model.encoder.weight.add_(1)
    distillation.after_update(model, updates, 1000)
    decay = min((1 + updates) / (10 + updates), 1 - 0.1 * (math.cos(math.pi * updates / 1000) + 1) / 2)
    torch.testing.assert_close(copied.get_parameter("encoder.weight"), before + (1 - decay))


def test_local_views_are_resized_to_their_size() -> None:
    sizes: list[torch.Size] = []
    model, distillation = network(), task(local_views=3, local_size=0.75)
    distillation.companions(model)
    model.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    distillation.loss(model, batch(views=5))
    assert sizes == [(10, 1, 8, 8), (15, 1, 6, 6)]


def test_validation_compares_the_first_two_views_and_monitors_no_score() -> None:
    model, distillation = network(), task(local_views=2)
    companions = distillation.companions(model)
    companions["predictor"].module.eval()
    model.eval()
    scores = distillation.scores(distillation.statistics(model, batch()))
    assert scores["loss"] == pytest.approx(distillation.loss(model, batch()).item(), rel=1e-5)
    assert scores.keys() == {"loss", "retrieval", "embedding_std", "effective_rank"}
    assert distillation.monitor is None


def test_statistics_of_batches_add_up_and_scores_without_images_are_undefined() -> None:
    model, distillation, complete = network().eval(), task(), batch(6)
    distillation.companions(model)["predictor"].module.eval()
    views = [tuple(view[part] for view in complete.views) for part in (slice(0, 2), slice(2, 6))]
    parts = [distillation.statistics(model, Batch(images=part[0], target=part[0], views=part)) for part in views]
    sums = distillation.statistics(model, complete)
    together = parts[0] + parts[1]
    together[1] = sums[1]  # retrieval depends on the other images of a batch
    torch.testing.assert_close(together, sums, rtol=1e-5, atol=1e-5)
    assert all(math.isnan(value) for value in distillation.scores(torch.zeros_like(sums)).values())


def test_losses_are_computed_in_float32_under_bfloat16() -> None:
    model, distillation = network(), task()
    distillation.companions(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert distillation.loss(model, batch()).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"local_size": 0.3}, r"local_size is 0.3 with local_views 0; allowed: with local views; .*set local_views"),
        ({"local_crop": [0.1, 0.2]}, r"local_crop is \[0.1, 0.2\] with local_views 0"),
        ({"local_crop": [0.4, 0.2], "local_views": 2}, r"local_crop is \[0.4, 0.2\]; .*write local_crop: \[0.2, 0.4\]"),
    ],
)
def test_invalid_settings_of_local_views_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelfDistillationSettings.model_validate(settings)
