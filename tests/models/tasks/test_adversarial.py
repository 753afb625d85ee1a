"""Losses of adversarial segmentation compared with their formulas."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.settings import AdversarialSettings
from models.tasks import make_task
from models.tasks.adversarial import DISCRIMINATOR, Adversarial
from models.tasks.base import NETWORK, Batch, Outputs
from tests.support.networks import network_without_parameters

SIZE, CLASSES = 32, 3
SMALL = {"name": "patchgan", "receptive_field": 16}


def make_adversarial(*, exclusive: bool = True, **block: object) -> Adversarial:
    settings = AdversarialSettings.model_validate(
        {"loss": {"dice": 1.0}, "adversarial": {"discriminator": SMALL} | block}
    )
    task = make_task(settings, Outputs(names=("a", "b", "c")[: CLASSES - exclusive], exclusive=exclusive))
    assert isinstance(task, Adversarial)
    torch.manual_seed(0)
    task.companions(network_without_parameters())
    return task


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, CLASSES, 3, padding=1))


def batch(*, exclusive: bool = True, update: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(5)
    images, unlabelled = torch.rand(2, 2, 1, SIZE, SIZE, generator=generator)
    target = torch.randint(0, CLASSES, (2, SIZE, SIZE), generator=generator).byte()
    if not exclusive:
        target = (torch.rand(2, CLASSES, SIZE, SIZE, generator=generator) > 0.5).byte()
    return Batch(images=images, target=target, unlabelled=unlabelled, update=update)


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


def test_unlabelled_images_have_zero_gradients_if_their_lambdas_are_zero() -> None:
    task, generator = make_adversarial(lambda2=0.0, lambda_semi=0.0), network()
    unlabelled = batch().unlabelled
    assert unlabelled is not None
    task.unlabelled_loss(generator, unlabelled, update=10_000).backward()

    assert all(gradient is not None and not gradient.any() for gradient in gradients(generator))


SELF_TRAINING = {"lambda2": 0.0, "lambda_semi": 0.1, "semi_start": 7, "t_semi": 0.0}


@pytest.mark.parametrize("block", [{"lambda2": 0.1}, SELF_TRAINING])
def test_unlabelled_images_have_gradients_otherwise(block: dict[str, float]) -> None:
    task, generator = make_adversarial(**block), network()
    unlabelled = batch().unlabelled
    assert unlabelled is not None
    task.unlabelled_loss(generator, unlabelled, update=7).backward()

    assert all(gradient is not None and gradient.any() for gradient in gradients(generator))


def test_self_training_starts_at_its_update() -> None:
    task, generator = make_adversarial(**SELF_TRAINING), network()
    unlabelled = batch().unlabelled
    assert unlabelled is not None

    assert float(task.unlabelled_loss(generator, unlabelled, update=6).detach()) == 0.0
    assert float(task.unlabelled_loss(generator, unlabelled, update=7).detach()) > 0.0


def test_labelled_loss_is_segmentation_plus_lambda1_times_the_adversarial_loss() -> None:
    task, generator = make_adversarial(lambda1=0.3, lambda2=0.0), network()
    examples = batch()
    updates = dict(task.updates(generator, examples))
    logits = generator(examples.images)
    discriminator_output = task._discriminator(logits.softmax(dim=1), examples.images)
    expected = task._loss(logits, examples.target) - 0.3 * F.logsigmoid(discriminator_output).mean()

    torch.testing.assert_close(updates[NETWORK], expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_discriminator_loss_is_the_cross_entropy_of_true_against_predicted_maps(exclusive: bool) -> None:
    task, examples = make_adversarial(exclusive=exclusive), batch(exclusive=exclusive)
    maps = torch.rand(2, CLASSES, SIZE, SIZE)
    truth = F.one_hot(examples.target.long(), CLASSES).movedim(-1, 1) if exclusive else examples.target
    real_logits, fake = task._discriminator(truth.float(), examples.images), task._discriminator(maps, examples.images)
    expected = -(F.logsigmoid(real_logits).mean() + F.logsigmoid(-fake).mean()) / 2

    torch.testing.assert_close(task.discriminator_loss(maps, examples), expected)


@pytest.mark.parametrize("exclusive", [True, False])
def test_self_training_is_a_mean_over_trusted_pixels_against_the_own_prediction(exclusive: bool) -> None:
    task = make_adversarial(exclusive=exclusive, t_semi=0.2)
    logits = torch.randn(2, CLASSES, SIZE, SIZE)
    discriminator_output = torch.randn(2, 1, SIZE, SIZE)
    trusted = discriminator_output.sigmoid()[:, 0] > 0.2
    if exclusive:
        expected = F.cross_entropy(logits, logits.argmax(dim=1), reduction="none")[trusted].mean()
    else:
        cost = F.binary_cross_entropy_with_logits(logits, (logits > 0).float(), reduction="none")
        expected = cost.movedim(1, -1)[trusted].mean()

    torch.testing.assert_close(task.self_training_loss(logits, discriminator_output), expected)


def test_without_trusted_pixels_the_loss_is_0() -> None:
    task = make_adversarial(t_semi=1.0)

    assert float(task.self_training_loss(torch.randn(1, CLASSES, 8, 8), torch.randn(1, 1, 8, 8))) == 0.0


def test_each_network_has_gradients_in_its_own_turn_only() -> None:
    task, generator = make_adversarial(lambda2=0.1), network()
    for network_name, loss in task.updates(generator, batch()):
        updated, fixed = (
            (task._discriminator, generator) if network_name == DISCRIMINATOR else (generator, task._discriminator)
        )
        for module in (generator, task._discriminator):
            module.zero_grad(set_to_none=True)
        loss.backward()
        assert all(gradient is not None for gradient in gradients(updated)), network_name
        assert all(gradient is None for gradient in gradients(fixed)), network_name


@pytest.mark.parametrize("discriminator", [SMALL, {"name": "fully_convolutional"}], ids=["patchgan", "per pixel"])
def test_a_conditional_discriminator_receives_the_image(discriminator: dict[str, object]) -> None:
    maps, images = torch.rand(1, CLASSES, SIZE, SIZE), torch.rand(1, 1, SIZE, SIZE)
    plain, conditional = (
        make_adversarial(discriminator=discriminator),
        make_adversarial(discriminator=discriminator | {"conditional": True}),
    )

    assert torch.equal(plain._discriminator(maps, images), plain._discriminator(maps, images * 0))
    assert not torch.equal(conditional._discriminator(maps, images), conditional._discriminator(maps, images * 0))


SECOND_PHASE: dict[str, object] = {"lambda2": 0.3, "unlabelled_start": 4, "freeze_discriminator": True}


def test_no_image_without_mask_contributes_before_unlabelled_start() -> None:
    generator = network()
    later, never = make_adversarial(lambda2=0.3, unlabelled_start=4), make_adversarial(lambda2=0.0)
    for update, is_equal in ((3, True), (4, False)):
        losses = [dict(task.updates(generator, batch(update=update)))[NETWORK] for task in (later, never)]
        assert torch.equal(*losses) == is_equal


def test_joint_update_adds_lambda2_times_the_adversarial_loss_of_a_fixed_discriminator() -> None:
    task, generator, examples = make_adversarial(lambda1=0.2, **SECOND_PHASE), network(), batch(update=4)
    updates = dict(task.updates(generator, examples))
    logits = generator(examples.images)
    task._discriminator.eval()
    judged = task._discriminator(logits.softmax(dim=1), examples.images)
    unlabelled = generator(examples.unlabelled).softmax(dim=1)
    adversarial = -F.logsigmoid(task._discriminator(unlabelled, examples.unlabelled)).mean()
    expected = task._loss(logits, examples.target) - 0.2 * F.logsigmoid(judged).mean() + 0.3 * adversarial

    assert updates.keys() == {NETWORK}
    torch.testing.assert_close(updates[NETWORK], expected)


def test_update_without_labelled_images_is_lambda2_times_the_adversarial_loss() -> None:
    task, generator, examples = make_adversarial(unlabelled_only=True, **SECOND_PHASE), network(), batch(update=4)
    updates = dict(task.updates(generator, examples))
    task._discriminator.eval()
    maps = generator(examples.unlabelled).softmax(dim=1)
    expected = -0.3 * F.logsigmoid(task._discriminator(maps, examples.unlabelled)).mean()

    assert updates.keys() == {NETWORK}
    torch.testing.assert_close(updates[NETWORK], expected)


@pytest.mark.parametrize("only", [False, True])
def test_a_fixed_discriminator_keeps_parameters_and_batch_norm_statistics(only: bool) -> None:
    task, generator = make_adversarial(unlabelled_only=only, **SECOND_PHASE), network()
    states = []
    for update in (3, 4, 5):
        for _, loss in task.updates(generator, batch(update=update)):
            loss.backward()
        states.append({name: tensor.clone() for name, tensor in task._discriminator.state_dict().items()})

    assert any("running_mean" in name for name in states[0])
    assert all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize("only", [False, True])
def test_without_unlabelled_images_training_is_supervised(only: bool) -> None:
    generator, examples = network(), replace(batch(update=9), unlabelled=None)
    later, plain = make_adversarial(unlabelled_only=only, **SECOND_PHASE), make_adversarial()
    updates, expected = dict(later.updates(generator, examples)), dict(plain.updates(generator, examples))

    assert updates.keys() == expected.keys() == {DISCRIMINATOR, NETWORK}
    assert all(torch.equal(loss, expected[name]) for name, loss in updates.items())


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"freeze_discriminator": True}, r"unlabelled_start 0, .*; allowed: with unlabelled_start 1 or more; raise"),
        ({"unlabelled_only": True, "unlabelled_start": 3}, r"allowed: with freeze_discriminator: true; set it"),
        ({**SECOND_PHASE, "unlabelled_only": True, "lambda2": 0.0}, r"lambda2 is 0 .*; allowed: above 0; raise it"),
    ],
)
def test_phases_without_any_training_are_refused(block: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_adversarial(**block)
