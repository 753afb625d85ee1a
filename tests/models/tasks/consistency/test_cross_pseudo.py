"""Cross pseudo supervision against its formula: each network learns from masks and from the other."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.network import Network
from models.tasks.base import Batch
from models.tasks.consistency.cross_pseudo import SECOND_NETWORK
from tests.support.consistency import batch, companions, evaluation_logits, network, task, training_logits

WEIGHT = 0.7


def cost(logits: Tensor, labels: Tensor, *, exclusive: bool, rows: int = 0) -> Tensor:
    """Return torch's cross-entropy, from a given row on."""
    logits, labels = logits[..., rows:, :], labels[..., rows:, :]
    if exclusive:
        return F.cross_entropy(logits, labels.long())
    return F.binary_cross_entropy_with_logits(logits, labels.float())


def labels_of(logits: Tensor, *, exclusive: bool) -> Tensor:
    return logits.argmax(1) if exclusive else logits >= 0


def own_loss(
    trained_network: Network, pseudo_labeller: Network, examples: Batch, *, exclusive: bool, rows: int
) -> Tensor:
    """Return the loss of one network: on the masks and, without CutMix on all images, on the labels of the other."""
    if examples.pasted is None:
        (weak,) = examples.unlabelled_views
        labels, logits = labels_of(training_logits(pseudo_labeller, weak), exclusive=exclusive), trained_network(weak)
    else:
        weak, strong, partner = examples.unlabelled_views
        mixed = torch.where(
            examples.pasted, evaluation_logits(pseudo_labeller, partner), evaluation_logits(pseudo_labeller, weak)
        )
        labels, logits = labels_of(mixed, exclusive=exclusive), trained_network(strong)
    predicted, crossed = trained_network(examples.images), cost(logits, labels, exclusive=exclusive)
    if examples.pasted is None:
        of_other = labels_of(training_logits(pseudo_labeller, examples.images), exclusive=exclusive)
        crossed = crossed + cost(predicted, of_other, exclusive=exclusive, rows=rows)
    return cost(predicted, examples.target, exclusive=exclusive, rows=rows) + WEIGHT * crossed


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize(
    ("exclusive", "rows"), [(True, 0), (True, 3), (False, 0)], ids=["exclusive", "rows without label", "overlapping"]
)
def test_each_network_is_trained_by_its_own_terms_only(exclusive: bool, cutmix: float, rows: int) -> None:
    loss = {"cross_entropy" if exclusive else "binary_cross_entropy": 1.0}
    consistency = task("cross_pseudo", exclusive=exclusive, cutmix=cutmix, weight=WEIGHT, loss=loss)
    first, examples = network(), batch(consistency, exclusive=exclusive, ignored=rows)
    (second,) = companions(consistency, first).values()
    assert isinstance(second, Network)
    # The statistics of batch norm used in evaluation mode are those after the labelled images.
    moved = [copy.deepcopy(part) for part in (first, second)]
    for part in moved:
        part(examples.images)
    total = consistency.loss(first, examples)
    total.backward()
    expected = 0.0
    for (own, moved_other), trained in zip(
        ((network(), moved[1]), (network(9), moved[0])), (first, second), strict=True
    ):
        loss_of_one = own_loss(own, moved_other, examples, exclusive=exclusive, rows=rows)
        loss_of_one.backward()
        expected += loss_of_one.item()
        assert_same_gradients(own, trained)
    assert total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("cutmix", "expected"), [(0.0, True), (1.0, False)])
def test_pseudo_labels_are_used_on_labelled_images_only_without_cutmix(cutmix: float, expected: bool) -> None:
    losses = []
    for weight in (0.0, 1.0):
        first, consistency = network(), task("cross_pseudo", cutmix=cutmix, weight=weight)
        companions(consistency, first)
        examples = replace(batch(consistency), unlabelled=None, unlabelled_views=(), pasted=None, unlabelled_keys=())
        losses.append(consistency.loss(first, examples).item())
    assert (losses[0] != losses[1]) == expected


def assert_same_gradients(first: nn.Module, second: nn.Module) -> None:
    for (name, parameter), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(other.grad, parameter.grad, msg=name, rtol=1e-4, atol=1e-6)


def test_both_networks_are_trained_jointly() -> None:
    consistency = task("cross_pseudo")
    assert consistency.companions(network(), network)[SECOND_NETWORK].trained == "jointly"
