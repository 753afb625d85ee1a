"""FixMatch against its formula, pixel by pixel."""

import numpy as np
import pytest

from models.tasks.consistency.base import UnlabelledViews
from tests.support.consistency import (
    batch,
    confident_cross_entropy,
    evaluation_logits,
    network,
    probabilities,
    task,
    training_logits,
)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_loss_is_the_cross_entropy_of_confident_pixels_over_all_pixels(exclusive: bool, cutmix: float) -> None:
    first, fixmatch = network(), task("fixmatch", exclusive=exclusive, cutmix=cutmix, confidence=0.7)
    examples = batch(fixmatch)
    weak, strong, partner = examples.unlabelled_views[0], examples.unlabelled_views[1], examples.unlabelled_views[-1]
    pasted = np.zeros((4, 8, 8), bool) if examples.pasted is None else examples.pasted[:, 0].numpy()
    expected, share = confident_cross_entropy(
        training_logits(first, strong),
        probabilities(training_logits(first, weak), exclusive=exclusive),
        probabilities(evaluation_logits(first, partner), exclusive=exclusive),
        pasted,
        exclusive=exclusive,
        confidence=0.7,
    )
    assert 0.1 < share < 0.9, "the case is chosen so that some pixels are confident"
    loss = fixmatch.unlabelled_loss(first, UnlabelledViews.of(examples))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_without_confident_pixels_the_loss_is_0_and_has_gradients() -> None:
    first, fixmatch = network(), task("fixmatch", confidence=0.999999)
    loss = fixmatch.unlabelled_loss(first, UnlabelledViews.of(batch(fixmatch)))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in first.parameters())
