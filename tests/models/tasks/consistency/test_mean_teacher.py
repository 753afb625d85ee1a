"""The mean teacher compared with its formulas."""

import numpy as np
import pytest
import torch

from models.tasks.base import NETWORK
from models.tasks.consistency.base import UnlabelledViews
from models.tasks.consistency.mean_teacher import TEACHER
from tests.support.consistency import (
    batch,
    companions,
    evaluation_logits,
    network,
    probabilities,
    task,
    training_logits,
)


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
@pytest.mark.parametrize("exclusive", [True, False])
def test_the_loss_is_the_squared_distance_to_the_mixed_probabilities_of_the_teacher(
    exclusive: bool, cutmix: float
) -> None:
    first, mean_teacher = network(), task("mean_teacher", exclusive=exclusive, cutmix=cutmix)
    companions(mean_teacher, network(1))  # a teacher with weights that differ from the network
    examples = batch(mean_teacher)
    weak, strong = (examples.unlabelled_views[number] for number in (0, 1))
    targets = probabilities(evaluation_logits(network(1), weak), exclusive=exclusive)
    if cutmix:
        assert examples.pasted is not None
        partner = probabilities(evaluation_logits(network(1), examples.unlabelled_views[2]), exclusive=exclusive)
        targets = np.where(examples.pasted.numpy(), partner, targets)
    student = probabilities(training_logits(first, strong), exclusive=exclusive)
    loss = mean_teacher.unlabelled_loss(first, UnlabelledViews.of(examples))
    assert loss.item() == pytest.approx(np.mean(np.sum((student - targets) ** 2, axis=1)), rel=1e-4)


def test_the_teacher_is_a_moving_average_of_weights_and_statistics_without_gradients() -> None:
    first, mean_teacher = network(), task("mean_teacher", momentum=0.6)
    (teacher,) = companions(mean_teacher, first).values()
    expected = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    for updates in (1, 2, 10):
        mean_teacher.loss(first, batch(mean_teacher)).backward()
        with torch.no_grad():
            for parameter in first.parameters():
                parameter.sub_(0.1 * parameter.grad)
        mean_teacher.after_update(first, updates, 10)
        decay = min(0.6, (1 + updates) / (10 + updates))
        for name, tensor in first.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    for name, tensor in teacher.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name])
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_is_stored_and_never_trained() -> None:
    mean_teacher = task("mean_teacher")
    assert mean_teacher.kept_module == TEACHER
    assert mean_teacher.companions(network())[TEACHER].trained == "never"
    assert {task(method).kept_module for method in ("fixmatch", "unimatch", "cross_pseudo")} == {NETWORK}
