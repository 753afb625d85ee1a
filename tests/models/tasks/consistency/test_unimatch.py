"""UniMatch compared with its formula, and its perturbation of features."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.build import Blueprint, build
from models.network import Network
from models.tasks.consistency.base import UnlabelledViews
from models.tasks.consistency.unimatch import drop_channels
from tests.support.consistency import (
    CLASSES,
    IMAGES,
    batch,
    confident_cross_entropy,
    evaluation_logits,
    network,
    probabilities,
    task,
    training_logits,
)


def perturbed_logits(net: Network, images: Tensor, keys: range, probability: float) -> tuple[Tensor, Tensor]:
    """Return the logits of the weak view, and those of its features without some channels."""
    encoded = copy.deepcopy(net).train().encode(images)
    dropped = drop_channels(encoded.features, keys, probability)
    both = [torch.cat(maps) for maps in zip(encoded.features, dropped, strict=True)]
    logits = copy.deepcopy(net).train().decode(replace(encoded, features=both))
    return logits[:IMAGES], logits[IMAGES:]


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_loss_is_a_weighted_sum_of_two_strong_views_and_perturbed_features(exclusive: bool, cutmix: float) -> None:
    first, unimatch = (
        network(),
        task("unimatch", exclusive=exclusive, cutmix=cutmix, confidence=0.7, feature_dropout=0.4),
    )
    examples = batch(unimatch)
    weak, partner = examples.unlabelled_views[0], examples.unlabelled_views[-1]
    nothing = np.zeros((4, 8, 8), bool)
    regions = [nothing] * 2 if examples.pasted is None else [examples.pasted[:, number].numpy() for number in range(2)]
    teacher, perturbed = perturbed_logits(first, weak, range(100, 104), 0.4)
    strong = training_logits(first, torch.cat(examples.unlabelled_views[1:3])).split(IMAGES)
    targets, others = (
        probabilities(logits, exclusive=exclusive) for logits in (teacher, evaluation_logits(first, partner))
    )
    losses, shares = zip(*(
        confident_cross_entropy(logits, targets, others, region, exclusive=exclusive, confidence=0.7)
        for logits, region in zip((*strong, perturbed), (*regions, nothing), strict=True)
    ), strict=True)  # fmt: skip
    assert all(0 < share < 1 for share in shares), "the case is chosen so that some pixels are confident"
    expected = 0.25 * losses[0] + 0.25 * losses[1] + 0.5 * losses[2]
    loss = unimatch.unlabelled_loss(first, UnlabelledViews.of(examples))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_plain_vision_transformers_are_trained() -> None:
    parts = Blueprint(architecture="dpt", backbone="tu-test_vit", channels=1, outputs=CLASSES)
    unimatch, first = task("unimatch", cutmix=0.0, confidence=0.0), build(parts).train()
    weak, *strong = torch.rand(3, 2, 1, 32, 32)
    unimatch.unlabelled_loss(first, UnlabelledViews(weak=weak, strong=tuple(strong), keys=(1, 2))).backward()
    gradients = [parameter.grad for name, parameter in first.named_parameters() if name.startswith("encoder.")]
    assert any(gradient is not None and gradient.any() for gradient in gradients)


def maps() -> list[Tensor]:
    return [torch.ones(3, 400, 4, 4), torch.ones(3, 600, 2, 2)]


def test_channels_are_dropped_as_by_torchs_dropout2d() -> None:
    dropped = drop_channels(maps(), (1, 2, 3), 0.25)
    for before, after in zip(maps(), dropped, strict=True):
        assert after.shape == before.shape
        assert after.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
        assert (after.flatten(2).std(dim=2) == 0).all()
        assert (after == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(dropped[0][0], dropped[0][1])


def test_the_channels_of_an_image_depend_on_its_key_alone() -> None:
    together = drop_channels(maps(), (1, 2, 3), 0.5)
    alone = drop_channels([part[2:] for part in maps()], (3,), 0.5)
    assert all(torch.equal(dropped[2:], expected) for dropped, expected in zip(together, alone, strict=True))


def test_tokens_of_vision_transformers_are_unchanged() -> None:
    tokens = torch.ones(3, 1, 64)
    token, dropped = drop_channels([tokens, maps()[0]], (1, 2, 3), 0.5)
    assert torch.equal(token, tokens)
    assert torch.equal(dropped, drop_channels(maps()[:1], (1, 2, 3), 0.5)[0])


def test_without_dropout_features_are_unchanged() -> None:
    assert all(
        torch.equal(after, before) for after, before in zip(drop_channels(maps(), (1, 2, 3), 0.0), maps(), strict=True)
    )
