"""The contrastive losses compared with their formulas, the queue, and the momentum network."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.architectures.heads import ProjectionHead
from models.architectures.parts import NetworkParts
from models.network import Network
from models.task_settings.views import ContrastiveSettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs
from models.tasks.contrastive import Contrastive, Queue, momentum_contrast, nt_xent

DIMENSIONS = 6


class Encoder(torch.nn.Conv2d):
    """One feature map."""

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [super().forward(images).relu()]


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    parts = NetworkParts(encoder=Encoder(1, 8, 3), decoder=None, head=ProjectionHead(8, 16, DIMENSIONS))
    return Network(parts, mean=[0.5], std=[0.5], stages=[["weight"]])


def task(**settings: float) -> Contrastive:
    model = make_task(ContrastiveSettings(projection=DIMENSIONS, **settings), Outputs(names=("grey",)))  # type: ignore[arg-type]
    assert isinstance(model, Contrastive)
    return model


def batch(images: int = 5, *, seed: int = 0, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = tuple(torch.rand(images, 1, 8, 8, generator=generator) for _ in range(2))
    return Batch(images=views[0], target=views[0], views=views, positions=torch.arange(first, first + images))


def vectors(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(*shape, DIMENSIONS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(values, dim=-1)


def test_the_loss_of_a_batch_is_equation_1_of_simclr() -> None:
    embeddings, temperature = vectors(4, 2), 0.3
    flat = embeddings.reshape(8, DIMENSIONS).numpy()
    similarity = np.exp(flat @ flat.T / temperature)
    costs = []
    for view in range(8):
        partner = view + 1 if view % 2 == 0 else view - 1
        others = sum(similarity[view, k] for k in range(8) if k != view)
        costs.append(-np.log(similarity[view, partner] / others))
    assert nt_xent(embeddings, temperature=temperature).item() == pytest.approx(np.mean(costs))


def test_a_single_image_has_no_negatives() -> None:
    assert nt_xent(vectors(1, 2), temperature=0.1).item() == pytest.approx(0, abs=1e-12)


def test_the_loss_of_equal_embeddings_is_that_of_a_uniform_prediction() -> None:
    equal = vectors(1, 1).expand(6, 2, DIMENSIONS)
    assert nt_xent(equal, temperature=0.1).item() == pytest.approx(math.log(11))


def filled_queue(size: int, keys: Tensor, positions: list[int]) -> Queue:
    queue = Queue(size, DIMENSIONS).double()
    queue.push(keys, torch.tensor(positions))
    return queue


def test_the_loss_with_a_queue_is_equation_1_of_moco_in_both_directions() -> None:
    queries, keys, temperature = vectors(3, 2, seed=1), vectors(3, 2, seed=2), 0.2
    earlier = vectors(4, 2, seed=3)
    queue = filled_queue(20, earlier, [7, 1, 8, 9])  # image 1 is in the batch too; twelve places are empty
    costs = []
    for view in range(2):
        for image in range(3):
            q = queries[image, view].numpy()
            positive = np.exp(q @ keys[image, 1 - view].numpy() / temperature)
            others = [keys[other, 1 - view] for other in range(3) if other != image]
            others += [earlier[k, v] for k, position in enumerate([7, 1, 8, 9]) for v in range(2) if position != image]
            total = positive + sum(np.exp(q @ key.numpy() / temperature) for key in others)
            costs.append(-np.log(positive / total))
    loss = momentum_contrast(queries, keys, torch.arange(3), queue, temperature=temperature)
    assert loss.item() == pytest.approx(np.mean(costs))


def test_a_queue_contains_the_latest_embeddings() -> None:
    queue = filled_queue(5, vectors(2, 2, seed=1), [0, 1])
    queue.push(vectors(2, 2, seed=2), torch.tensor([2, 3]))
    assert queue.positions.tolist() == [2, 2, 3, 3, 0]
    torch.testing.assert_close(queue.keys[:4], vectors(2, 2, seed=2).reshape(4, DIMENSIONS))
    queue.push(vectors(9, 2, seed=3), torch.arange(9))
    torch.testing.assert_close(queue.keys, vectors(9, 2, seed=3).reshape(18, DIMENSIONS)[:5])


def test_gradients_reach_the_network_and_not_its_momentum_copy() -> None:
    model, contrastive = network(), task(queue=16)
    companions = contrastive.companions(model)
    contrastive.loss(model, batch()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in companions["momentum_network"].module.parameters())


def test_an_update_moves_the_copy_and_adds_the_keys_of_the_batch_to_the_queue() -> None:
    model, contrastive = network(), task(queue=16, momentum=0.9)
    updates = 500  # with fewer updates, the decay is smaller
    companions = contrastive.companions(model)
    copied, queue = companions["momentum_network"].module, companions["queue"].module
    before = {name: tensor.clone() for name, tensor in copied.state_dict().items()}
    contrastive.loss(model, batch(4, first=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    contrastive.after_update(model, updates, 1000)
    for name, tensor in model.state_dict().items():
        expected = 0.9 * before[name] + 0.1 * tensor if tensor.is_floating_point() else tensor
        torch.testing.assert_close(copied.state_dict()[name], expected)
    assert queue.get_buffer("positions").tolist() == [3, 3, 4, 4, 5, 5, 6, 6, *[-1] * 8]
    torch.testing.assert_close(queue.get_buffer("keys").norm(dim=1), torch.tensor([1.0] * 8 + [0.0] * 8))


def test_parts_of_a_batch_enter_the_queue_after_the_update_of_all() -> None:
    model, contrastive = network(), task(queue=12)
    queue = contrastive.companions(model)["queue"].module
    for first in (0, 3):
        contrastive.loss(model, batch(3, first=first))
        assert not queue.get_buffer("keys").any()
    contrastive.after_update(model, 1, 10)
    assert sorted(queue.get_buffer("positions").tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_the_validation_loss_is_that_of_the_batch_alone() -> None:
    for contrastive in (task(), task(queue=16)):
        model = network()
        contrastive.companions(model)
        contrastive.loss(model, batch(seed=1))
        contrastive.after_update(model, 1, 10)
        model = network().eval()
        scores = contrastive.scores(contrastive.statistics(model, batch()))
        assert scores["loss"] == pytest.approx(task().loss(model, batch()).item(), rel=1e-5)
        assert scores.keys() == {"loss", "retrieval", "embedding_std", "effective_rank"}


def test_batches_of_one_image_have_no_validation_loss_but_count_for_the_spread() -> None:
    contrastive, model = task(), network().eval()
    sums = contrastive.statistics(model, batch(4))
    alone = contrastive.statistics(model, batch(1, seed=9))
    for name in ("loss", "retrieval"):
        assert contrastive.scores(sums + alone)[name] == contrastive.scores(sums)[name]
    assert contrastive.scores(sums + alone)["embedding_std"] != contrastive.scores(sums)["embedding_std"]
    assert math.isnan(contrastive.scores(alone)["loss"])


def test_scores_without_images_are_undefined() -> None:
    contrastive, model = task(), network().eval()
    sums = contrastive.statistics(model, batch())
    assert all(math.isnan(value) for value in contrastive.scores(torch.zeros_like(sums)).values())


def test_losses_are_computed_in_float32_under_bfloat16() -> None:
    contrastive = task()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive.loss(network(), batch())
    assert loss.dtype == torch.float32


def test_momentum_without_a_queue_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum is 0.5 with queue 0; allowed: with a queue.*set queue"):
        ContrastiveSettings(momentum=0.5)
