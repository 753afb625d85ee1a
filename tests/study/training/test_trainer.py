"""The loop on made-up arrays: small, exact, and the same for every task."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

from models.network import Network
from models.tasks.adversarial import DISCRIMINATOR
from study.config.schema import Link
from study.config.stages import Stage
from study.training.checkpoint import Checkpoints
from study.training.loader import WorkerContext
from study.training.trainer import Diverged, Trained, TrainingLoop
from tests.support.loops import Killed, Setting, stage

pytestmark = pytest.mark.usefixtures("one_thread")

TEACHER = {"backbone": "tu-test_vit", "initial_weights": "random"}
AUGMENT = {"flip": 0.5, "rotate": 10, "shift": 0.05, "brightness": 0.2, "noise": 0.05}


def same(first: Trained, second: Trained) -> None:
    """Assert equality bit for bit, of weights, history and progress."""
    assert first.weights.keys() == second.weights.keys()
    for name, tensor in first.weights.items():
        assert torch.equal(tensor, second.weights[name]), name
    assert first.progress == second.progress
    assert repr(first.history) == repr(second.history)  # repr: NaN is equal to itself, floats are exact


def two_phases(**block: object) -> Stage:
    """Return an adversarial stage of 10 updates whose images without masks start in the middle of epoch 3."""
    discriminator = {"name": "patchgan", "receptive_field": 16, "conditional": True}
    second = {"lambda2": 0.1, "unlabelled_start": 5, "freeze_discriminator": True, "discriminator": discriminator}
    return stage("adversarial", epochs=5, augment=AUGMENT, adversarial=second | block)


COVERING = {
    "reconstruction, corrupted": Setting(
        settings=stage("reconstruction", corrupt=0.2, augment=AUGMENT, optimizer={"name": "adamw", "weight_decay": 0.1})
    ),
    "masked reconstruction": Setting(settings=stage("masked_reconstruction", augment=AUGMENT), dropout=0.3),
    "masked autoencoder, bf16": Setting(
        settings=stage("masked_reconstruction", method="mae", decoder_width=32, decoder_depth=1, precision="bf16",
                       augment=AUGMENT)
    ),
    "feature distillation": Setting(
        settings=stage("feature_distillation", augment=AUGMENT, teacher=TEACHER)
    ),
    "classification, cosine": Setting(
        settings=stage("classification", schedule={"name": "cosine"}, augment=AUGMENT), dropout=0.3
    ),
    "contrastive, validated moving average": Setting(
        settings=stage("contrastive", hidden=16, projection=8, average={"name": "ema", "decay": 0.8},
                       schedule={"name": "cosine"}),
        dropout=0.3,
    ),
    "contrastive with a queue, parts of batches, bf16": Setting(
        settings=stage("contrastive", batch_size=8, accumulate=2, epochs=4, hidden=16, projection=8, queue=20,
                       momentum=0.9, precision="bf16")
    ),
    "self-distillation with a predictor, cosine": Setting(
        settings=stage("self_distillation", hidden=16, projection=8, schedule={"name": "cosine"}, clip_norm=1.0),
        dropout=0.3,
    ),
    "self-distillation with local views, averaged": Setting(
        settings=stage("self_distillation", hidden=16, projection=8, local_views=2, batch_size=8, accumulate=2,
                       average={"start": 0.5}, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9})
    ),
    "localisation, momentum, poly": Setting(
        settings=stage(
            "localisation", optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.9}, schedule={"name": "poly"},
            augment=AUGMENT,
        ),
        dropout=0.3,
    ),
    "segmentation, rmsprop, plateau, clipped": Setting(
        settings=stage(
            "segmentation", optimizer={"name": "rmsprop", "momentum": 0.5, "lr": 1e-4}, clip_norm=0.5,
            schedule={"name": "plateau", "patience": 1, "factor": 0.5}, augment=AUGMENT,
        ),
        dropout=0.3,
    ),
    "segmentation, steps, bf16": Setting(settings=stage("segmentation", steps=7, precision="bf16", augment=AUGMENT)),
    "no validation": Setting(settings=stage("segmentation", steps=7), validates=False),
    "early stopping": Setting(
        settings=stage("segmentation", epochs=5, early_stopping={"patience": 2, "min_delta": 0.5})
    ),
    "adversarial, self-training, two optimizers": Setting(
        settings=stage(
            "adversarial", epochs=5, schedule={"name": "poly"}, augment=AUGMENT,
            adversarial={"lambda2": 0.1, "lambda_semi": 0.1, "semi_start": 3,
                         "discriminator": {"name": "patchgan", "receptive_field": 16, "conditional": True},
                         "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}},
        ),
    ),
    "adversarial, second phase with a fixed discriminator": Setting(settings=two_phases()),
    "adversarial, second phase without labelled images": Setting(settings=two_phases(unlabelled_only=True)),
    "mean teacher, layer-wise rates": Setting(
        settings=stage("consistency", augment=AUGMENT, optimizer={"encoder_lr_factor": 0.3},
                       consistency={"method": "mean_teacher", "momentum": 0.3, "ramp_up": 0.7}),
        dropout=0.3,
    ),
    "mean teacher without validation": Setting(
        settings=stage("consistency", consistency={"method": "mean_teacher", "cutmix": 0.0}), validates=False
    ),
    "fixmatch, moving average, poly": Setting(
        settings=stage("consistency", augment=AUGMENT, average={"name": "ema", "decay": 0.8},
                       schedule={"name": "poly"}, consistency={"method": "fixmatch", "confidence": 0.5}),
        dropout=0.3,
    ),
    "unimatch, bf16, clipped": Setting(
        settings=stage("consistency", augment=AUGMENT, precision="bf16", clip_norm=0.5,
                       consistency={"method": "unimatch", "confidence": 0.5}),
    ),
    "cross pseudo supervision, averaged at a constant rate": Setting(
        settings=stage("consistency", augment=AUGMENT, average={"start": 0.5, "lr": 0.02}, l2=1e-4,
                       schedule={"name": "cosine"}, consistency={"method": "cross_pseudo"}),
        dropout=0.3,
    ),
    "cross pseudo supervision with adapters, unfrozen later": Setting(
        settings=stage("consistency", adapt="lora", consistency={"method": "cross_pseudo", "cutmix": 0.0}),
        link=Link(stage="one", freeze=("encoder",), unfreeze_after=2),
    ),
    "hard pseudo-labels": Setting(settings=stage("pseudo_labels", augment=AUGMENT, pseudo_labels={"ramp_up": 0.5})),
    "soft pseudo-labels, averaged": Setting(
        settings=stage("pseudo_labels", average={"start": 0.5}, augment=AUGMENT, pseudo_labels={"labels": "soft"})
    ),
    "segmentation, averaged": Setting(
        settings=stage("segmentation", epochs=6, average={"start": 0.5}, augment=AUGMENT, l2=1e-4)
    ),
    "segmentation, averaged at a constant rate, cosine": Setting(
        settings=stage("segmentation", epochs=6, average={"start": 0.5, "lr": 0.02}, schedule={"name": "cosine"})
    ),
    "segmentation, averaged at a constant rate, plateau": Setting(
        settings=stage("segmentation", epochs=6, average={"start": 0.5, "lr": 0.02},
                       schedule={"name": "plateau", "patience": 1, "factor": 0.5}, optimizer={"lr": 0.1})
    ),
    "segmentation, moving average, layer-wise rates, warm-up, smoothed labels": Setting(
        settings=stage("segmentation", average={"name": "ema", "decay": 0.8}, augment=AUGMENT, label_smoothing=0.1,
                       optimizer={"name": "adamw", "betas": [0.8, 0.95], "encoder_lr_factor": 0.3, "layer_decay": 0.5},
                       schedule={"name": "cosine", "warmup": 0.4})
    ),
    "segmentation, moving average without validation": Setting(
        settings=stage("segmentation", average={"name": "ema", "decay": 0.8}), validates=False
    ),
    "adapters": Setting(settings=stage("segmentation", adapt="lora", augment=AUGMENT)),
    "biases, unfrozen later": Setting(
        settings=stage("segmentation", adapt="bias"), link=Link(stage="one", freeze=("encoder",), unfreeze_after=2)
    ),
    "unfrozen later": Setting(
        settings=stage("segmentation", augment=AUGMENT), link=Link(stage="one", freeze=("encoder",), unfreeze_after=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("setting", COVERING.values(), ids=COVERING.keys())
def test_stage_interrupted_after_every_epoch_ends_as_one_left_alone(tmp_path: Path, setting: Setting) -> None:
    whole = setting.loop(tmp_path / "whole")
    epochs = len(whole.history)
    assert epochs > 2
    for crash_after in range(1, epochs):
        with pytest.raises(Killed):
            # Other random weights at each start: what counts comes from the checkpoint.
            setting.loop(tmp_path / "cut", crash_after=crash_after, weights_seed=1 if crash_after == 1 else 99)

    same(whole, setting.loop(tmp_path / "cut", weights_seed=99))


def test_averaged_weights_have_scores_of_their_own(tmp_path: Path) -> None:
    setting = COVERING["segmentation, averaged"]
    averaged = setting.loop(tmp_path / "averaged")
    plain = replace(setting, settings=setting.settings.model_copy(update={"average": None})).loop(tmp_path / "plain")
    assert averaged.averaged["mean_iou"] == averaged.progress.best_score
    assert averaged.averaged["loss"] != averaged.history[-1]["val/loss"]
    assert averaged.history == plain.history
    assert plain.averaged == {}


def torchs_moving_average(setting: Setting, decay: float) -> tuple[AveragedModel, list[float]]:
    """Train with SGD and average with torch; return the average and its validation loss after each epoch."""

    def average(mean: Tensor, current: Tensor, count: Tensor) -> Tensor:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        return share * mean + (1 - share) * current

    loop = setting.make()
    optimizer = SGD(loop.network.parameters(), lr=0.1, momentum=0.9)
    averaged, losses = AveragedModel(loop.network, avg_fn=average, use_buffers=True), list[float]()
    for epoch in range(4):
        loop.network.train()
        for (batch,) in loop.loader.training(epoch, 2 * epoch):
            optimizer.zero_grad()
            loop.task.loss(loop.network, batch).backward()
            optimizer.step()
            averaged.update_parameters(loop.network)
        averaged.eval()
        (held_out,) = loop.loader.validation()
        losses.append(loop.task.scores(loop.task.statistics(averaged, held_out))["loss"])
    return averaged, losses


def test_a_moving_average_equals_torchs_and_is_what_is_validated(tmp_path: Path) -> None:
    decay = 0.25  # reached by (1 + t) / (10 + t) after two updates
    settings = stage(
        "segmentation", average={"name": "ema", "decay": decay}, optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}
    )
    setting = Setting(settings=settings)
    averaged, losses = torchs_moving_average(setting, decay)
    trained = setting.loop(tmp_path / "validated")
    assert [row["val/loss"] for row in trained.history] == pytest.approx(losses, rel=1e-5)
    expected = averaged.module.state_dict()
    last = replace(setting, validates=False).loop(tmp_path / "not validated")
    assert last.weights.keys() == expected.keys()
    for name, tensor in last.weights.items():
        if tensor.is_floating_point():  # torch averages counters too
            torch.testing.assert_close(tensor, expected[name], msg=name)
    if trained.progress.best_epoch == trained.progress.epoch:
        same_weights = [torch.equal(trained.weights[name], tensor) for name, tensor in last.weights.items()]
        assert all(same_weights)


def test_training_itself_does_not_depend_on_a_moving_average(tmp_path: Path) -> None:
    plain = Setting(settings=stage("segmentation", augment=AUGMENT))
    moving = Setting(settings=stage("segmentation", augment=AUGMENT, average={"name": "ema"}))
    losses = [[row["train/loss"] for row in one.loop(tmp_path / str(number)).history]
              for number, one in enumerate((plain, moving))]  # fmt: skip
    assert losses[0] == losses[1]


def test_a_constant_rate_keeps_the_factors_of_the_layers() -> None:
    setting = Setting(settings=stage("segmentation", optimizer={"encoder_lr_factor": 0.5}))
    model = setting.make().models["network"]
    model.hold_rate(0.02)
    assert sorted(group["lr"] for group in model._optimizer.param_groups) == [0.01, 0.02]


def test_averaging_at_a_constant_rate_equals_torchs(tmp_path: Path) -> None:
    """Epochs 4 to 6 have the rate of SWALR and enter AveragedModel; epochs 1 to 3 follow cosine annealing."""
    settings = stage(
        "segmentation", epochs=6, average={"start": 0.5, "lr": 0.02}, schedule={"name": "cosine"},
        optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9},
    )  # fmt: skip
    setting = Setting(settings=settings)
    trained, reference = setting.loop(tmp_path), setting.make()
    network, task, loader = reference.network, reference.task, reference.loader
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    cosine, swalr, averaged = CosineAnnealingLR(optimizer, T_max=12), None, AveragedModel(network)
    rates = []
    network.train()
    for epoch in range(6):
        if epoch == 3:
            swalr = SWALR(optimizer, swa_lr=0.02, anneal_epochs=0)
        for (batch,) in loader.training(epoch, 2 * epoch):
            optimizer.zero_grad()
            task.loss(network, batch).backward()
            optimizer.step()
            (swalr or cosine).step()
        rates.append(optimizer.param_groups[0]["lr"])
        if epoch >= 3:
            averaged.update_parameters(network)
    update_bn((part.images for part in loader.training_parts(6)), averaged)

    assert [row["lr"] for row in trained.history] == pytest.approx(rates)
    expected = averaged.module.state_dict()
    for name, tensor in trained.weights.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize("task", ["segmentation", "masked_reconstruction", "contrastive"])
def test_statistics_of_averaged_weights_are_those_of_the_inputs_in_training(task: str, tmp_path: Path) -> None:
    views = {"hidden": 16, "projection": 8} if task == "contrastive" else {}
    setting = Setting(settings=stage(task, average={"start": 0.5}, **views))
    trained, reference = setting.loop(tmp_path), setting.make()
    network, inputs = reference.network, list[Tensor]()
    with network.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0][:4])):
        for (batch,) in reference.loader.training(4, 0):
            reference.task.loss(network.train(), batch)
    network.load_state_dict(trained.weights)
    update_bn(inputs, network)  # of several views, which are in one batch, the first
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(trained.weights[name], tensor, msg=name)


def test_a_fixed_discriminator_does_not_change_from_the_start_of_its_phase_on(tmp_path: Path) -> None:
    states: dict[int, dict[str, Tensor]] = {}
    loop = Setting(settings=two_phases(unlabelled_start=4)).make()

    def report(scores: Mapping[str, float]) -> None:
        state = loop.models[DISCRIMINATOR].network.state_dict()
        states[int(scores["epoch"])] = {name: tensor.clone() for name, tensor in state.items()}

    loop.context = WorkerContext(report=report)
    trained = loop.run(Checkpoints(work=tmp_path))
    changed = {
        epoch: {name for name, tensor in state.items() if not torch.equal(tensor, states[epoch - 1][name])}
        for epoch, state in states.items()
        if epoch > 1
    }

    assert changed[2] == states[1].keys()
    assert (changed[3], changed[4], changed[5]) == (set(), set(), set())
    losses = [row[f"train/{DISCRIMINATOR}_loss"] for row in trained.history]
    assert [math.isnan(loss) for loss in losses] == [False, False, True, True, True]


def test_stage_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    setting = COVERING["classification, cosine"]
    with pytest.raises(Killed):
        setting.loop(tmp_path / "cut", crash_after=0)

    same(setting.loop(tmp_path / "whole"), setting.loop(tmp_path / "cut"))


def test_seconds_of_a_resumed_stage_count_what_it_goes_on_from(tmp_path: Path) -> None:
    setting = COVERING["classification, cosine"]
    with pytest.raises(Killed):
        setting.loop(tmp_path, crash_after=2)
    written = json.loads(next(tmp_path.glob("*/epoch-*/state.json")).read_text())["numbers"]["progress"]["seconds"]
    trained = setting.loop(tmp_path)

    assert trained.earlier_seconds == written > 0
    assert trained.progress.seconds > written


def test_another_seed_trains_otherwise(tmp_path: Path) -> None:
    setting = COVERING["classification, cosine"]
    first, second = setting.loop(tmp_path / "a"), setting.loop(tmp_path / "b", weights_seed=2)

    assert first.history != second.history


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (2, 1), (3, 2), (7, 4)])
def test_steps_are_counted_exactly(tmp_path: Path, steps: int, epochs: int) -> None:
    trained = Setting(settings=stage("classification", steps=steps)).loop(tmp_path)

    assert trained.progress.updates == steps
    assert [row["epoch"] for row in trained.history] == list(range(1, epochs + 1))


def test_best_epoch_is_chosen_by_the_monitored_score(tmp_path: Path) -> None:
    setting = Setting(settings=stage("segmentation", epochs=6, optimizer={"lr": 0.02}))
    trained = setting.loop(tmp_path)
    ious = [row["val/mean_iou"] for row in trained.history]

    assert trained.progress.best_score == max(ious)
    assert trained.progress.best_epoch == ious.index(max(ious)) + 1


def test_lower_is_better_where_the_task_minimises(tmp_path: Path) -> None:
    trained = Setting(settings=stage("classification", epochs=5, optimizer={"lr": 0.02})).loop(tmp_path)
    losses = [row["val/loss"] for row in trained.history]

    assert trained.progress.best_epoch == losses.index(min(losses)) + 1


def test_weights_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    long = Setting(settings=stage("classification", epochs=5, optimizer={"lr": 0.05}))
    trained = long.loop(tmp_path / "long")
    best = trained.progress.best_epoch
    assert best < 5, "the case is chosen so that the last epoch is not the best"
    short = replace(long, settings=stage("classification", epochs=best, optimizer={"lr": 0.05}), validates=False)

    for name, tensor in short.loop(tmp_path / "short").weights.items():
        assert torch.equal(tensor, trained.weights[name]), name


def test_without_validation_the_last_epoch_is_taken(tmp_path: Path) -> None:
    setting = Setting(settings=stage("classification"), validates=False)
    loop = setting.make()
    trained = loop.run(Checkpoints(work=tmp_path))

    assert trained.progress.best_epoch == 0
    assert all(torch.equal(tensor, trained.weights[name]) for name, tensor in loop.network.state_dict().items())
    assert not any(name.startswith("val/") for name in trained.history[-1])


def judged(scores: list[float], *, patience: int, min_delta: float = 0.0, task: str = "segmentation") -> TrainingLoop:
    """A loop that was told these scores of successive epochs, until it would have stopped."""
    stopping = {"patience": patience, "min_delta": min_delta}
    loop = Setting(settings=stage(task, epochs=50, early_stopping=stopping)).make()
    for score in scores:
        if loop._is_stale():
            break
        loop.progress.epoch += 1
        loop._update_best({loop.task.monitor: score})
    return loop


@pytest.mark.parametrize(
    ("scores", "min_delta", "stopped", "best"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.0, 4, 4),
        ([0.4, 0.3, 0.3, 0.9], 0.0, 3, 1),
        ([0.4, 0.4, 0.4, 0.9], 0.0, 3, 1),
        ([0.40, 0.41, 0.42, 0.9], 0.05, 3, 3),
        ([0.40, 0.43, 0.46, 0.49, 0.52], 0.05, 5, 5),
        ([math.nan, 0.1, math.nan, 0.2], 0.0, 4, 4),
        ([0.2, math.nan, math.nan, 0.9], 0.0, 3, 1),
    ],
    ids=["rising", "falling", "level", "too little", "little by little", "undefined at first", "undefined later"],
)
def test_early_stopping(scores: list[float], min_delta: float, stopped: int, best: int) -> None:
    progress = judged(scores, patience=2, min_delta=min_delta).progress

    assert (progress.epoch, progress.best_epoch) == (stopped, best)


def test_early_stopping_of_a_minimised_score() -> None:
    assert judged([0.4, 0.3, 0.35, 0.36, 0.1], patience=2, task="classification").progress.best_epoch == 2


def frozen_state(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.encoder.state_dict().items()}


def test_frozen_encoder_keeps_weights_and_statistics(tmp_path: Path) -> None:
    loop = Setting(settings=stage("segmentation", epochs=2), link=Link(stage="one", freeze=("encoder",))).make()
    before = frozen_state(loop.network)
    decoder = {name: tensor.clone() for name, tensor in loop.network.decoder.state_dict().items()}
    loop.run(Checkpoints(work=tmp_path))

    assert all(torch.equal(before[name], tensor) for name, tensor in loop.network.encoder.state_dict().items())
    assert any(not torch.equal(decoder[name], tensor) for name, tensor in loop.network.decoder.state_dict().items())


def test_unfrozen_encoder_trains_and_normalises_from_that_epoch_on(tmp_path: Path) -> None:
    link = Link(stage="one", freeze=("encoder",), unfreeze_after=2)
    changed: dict[int, set[str]] = {}
    loop = Setting(settings=stage("segmentation", epochs=3), link=link).make()
    before = frozen_state(loop.network)

    def report(scores: Mapping[str, float]) -> None:
        now = loop.network.encoder.state_dict()
        changed[int(scores["epoch"])] = {name for name in now if not torch.equal(now[name], before[name])}

    loop.context = WorkerContext(report=report)
    loop.run(Checkpoints(work=tmp_path))

    assert (changed[1], changed[2]) == (set(), set())
    assert {"first.0.weight", "first.1.running_mean"} <= changed[3]


def test_loss_that_is_no_number_ends_the_stage_with_a_remedy(tmp_path: Path) -> None:
    setting = Setting(settings=stage("segmentation", optimizer={"name": "sgd", "lr": 1e30}))

    with pytest.raises(Diverged, match=r"the training loss is (nan|inf) in epoch 1; allowed: finite; lower optimizer"):
        setting.loop(tmp_path)


def test_learning_rate_in_the_history_follows_the_schedule(tmp_path: Path) -> None:
    setting = Setting(settings=stage("classification", schedule={"name": "cosine"}, optimizer={"lr": 0.01}))
    rates = [row["lr"] for row in setting.loop(tmp_path).history]

    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(1, 5)])


def test_report_tells_epoch_and_epochs(tmp_path: Path) -> None:
    told: list[Mapping[str, float]] = []
    loop = Setting(settings=stage("classification", epochs=2)).make()
    loop.context = WorkerContext(report=told.append)
    loop.run(Checkpoints(work=tmp_path))

    assert [(row["epoch"], row["epochs"]) for row in told] == [(1, 2), (2, 2)]


def test_finished_training_is_not_repeated_from_its_last_checkpoint(tmp_path: Path) -> None:
    setting = Setting(settings=stage("classification", early_stopping={"patience": 50}))
    with pytest.raises(Killed):
        setting.loop(tmp_path, crash_after=3)
    seen: list[float] = []
    loop = setting.make()
    loop.context = WorkerContext(report=lambda scores: seen.append(scores["epoch"]))
    loop.run(Checkpoints(work=tmp_path))

    assert seen == [4]


def recognised(place: Path, task: str, **settings: object) -> tuple[list[float], Mapping[str, float]]:
    """Train on eight images whose views remain recognisable; return the losses, and scores on the images themselves."""
    mild = {"preset": None, "rotate": 5, "brightness": 0.1, "noise": 0.02}
    made = stage(task, batch_size=8, augment=mild, hidden=32, projection=16, **settings)
    loop = Setting(settings=made, validates=False).make()
    trained = loop.run(Checkpoints(work=place, pause=3600))
    loop.network.eval()
    (batch,), *_ = loop.loader.training(0, 0)
    scores = loop.task.scores(loop.task.statistics(loop.network, batch))
    return [row["train/loss"] for row in trained.history], scores


@pytest.mark.parametrize("queue", [0, 16])
def test_contrastive_learning_tells_eight_images_apart(tmp_path: Path, queue: int) -> None:
    losses, scores = recognised(tmp_path, "contrastive", epochs=150, queue=queue, optimizer={"lr": 3e-3})
    guessing = math.log(15)
    assert max(losses[:10]) > 0.8 * guessing
    assert losses[-1] < guessing / 2, losses
    assert scores["loss"] < guessing / 3
    assert scores["retrieval"] > 0.8


def test_self_distillation_predicts_views_of_eight_images_without_collapse(tmp_path: Path) -> None:
    losses, scores = recognised(tmp_path, "self_distillation", epochs=150, optimizer={"lr": 1e-2})
    assert losses[-1] < losses[0] / 5, losses
    assert scores["embedding_std"] > 0.5
    assert scores["retrieval"] > 4 / 15  # one of 15 by chance


def test_where_no_score_chooses_an_epoch_the_last_one_is_kept(tmp_path: Path) -> None:
    loop = Setting(settings=stage("self_distillation", hidden=16, projection=8)).make()
    trained = loop.run(Checkpoints(work=tmp_path))
    assert (trained.progress.best_epoch, trained.progress.best_score) == (0, None)
    assert "val/embedding_std" in trained.history[-1]
    assert all(torch.equal(tensor, trained.weights[name]) for name, tensor in loop.network.state_dict().items())


def test_the_teacher_is_validated_and_kept(tmp_path: Path) -> None:
    """The weights, their scores and the best epoch are those of the moving average after each epoch."""
    setting = Setting(settings=stage("consistency", epochs=4, consistency={"method": "mean_teacher"}))
    loop = setting.make()
    states: dict[int, dict[str, Tensor]] = {}

    def report(scores: Mapping[str, float]) -> None:
        states[int(scores["epoch"])] = {
            name: tensor.clone() for name, tensor in loop.untrained["teacher"].state_dict().items()
        }

    loop.context = WorkerContext(report=report)
    trained = loop.run(Checkpoints(work=tmp_path))
    best = trained.progress.best_epoch
    assert trained.weights.keys() == states[best].keys()
    assert all(torch.equal(tensor, states[best][name]) for name, tensor in trained.weights.items())
    network = setting.make().network
    assert any(not torch.equal(tensor, loop.network.state_dict()[name]) for name, tensor in states[4].items())
    for epoch, row in enumerate(trained.history, start=1):
        network.load_state_dict(states[epoch])
        network.eval()
        (held_out,) = loop.loader.validation()
        with torch.no_grad():
            scores = loop.task.scores(loop.task.statistics(network, held_out))
        assert row["val/loss"] == pytest.approx(scores["loss"], rel=1e-5)
    last = replace(setting, validates=False).loop(tmp_path / "last")
    assert all(torch.equal(tensor, states[4][name]) for name, tensor in last.weights.items())


def cross_pseudo(**changes: object) -> Setting:
    """Return a setting of one update of two networks by stochastic gradient descent."""
    settings = {"steps": 1, "optimizer": {"name": "sgd", "lr": 0.1}, "consistency": {"method": "cross_pseudo"}}
    return Setting(settings=stage("consistency", **settings | changes), validates=False)


def kernels(loop: TrainingLoop) -> dict[str, Tensor]:
    """Return the weights of the convolutions of both networks."""
    return {
        f"{number} {name}": parameter.detach().clone()
        for number, network in enumerate(loop.networks)
        for name, parameter in network.named_parameters()
        if parameter.dim() == 4
    }


def test_weight_decay_of_kernels_holds_for_both_networks(tmp_path: Path) -> None:
    after = {}
    for l2 in (0.0, 0.01):
        loop = cross_pseudo(l2=l2).make()
        before = kernels(loop)
        loop.run(Checkpoints(work=tmp_path / str(l2)))
        after[l2] = kernels(loop)
    assert {name[0] for name in before} == {"0", "1"}
    for name, kernel in before.items():
        torch.testing.assert_close(after[0.0][name] - after[0.01][name], 0.1 * 2 * 0.01 * kernel, rtol=1e-3, atol=1e-6)


def test_gradients_of_both_networks_are_clipped_each_by_itself(tmp_path: Path) -> None:
    loop = cross_pseudo(clip_norm=1e-3).make()
    before = [[parameter.detach().clone() for parameter in network.parameters()] for network in loop.networks]
    loop.run(Checkpoints(work=tmp_path))
    for network, parameters in zip(loop.networks, before, strict=True):
        moved = [after.detach() - start for after, start in zip(network.parameters(), parameters, strict=True)]
        norm = torch.cat([part.flatten() for part in moved]).norm().item()
        assert norm == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_parts_are_frozen_and_unfrozen_in_both_networks(tmp_path: Path) -> None:
    link = Link(stage="one", freeze=("encoder",), unfreeze_after=2)
    loop = replace(cross_pseudo(steps=6), link=link).make()
    first, second = loop.networks
    before, changed = [frozen_state(network) for network in (first, second)], dict[int, list[set[str]]]()
    assert any(not torch.equal(before[0][name], before[1][name]) for name in before[0])  # drawn independently

    def report(scores: Mapping[str, float]) -> None:
        now = [network.encoder.state_dict() for network in (first, second)]
        changed[int(scores["epoch"])] = [
            {name for name in state if not torch.equal(state[name], old[name])}
            for state, old in zip(now, before, strict=True)
        ]

    loop.context = WorkerContext(report=report)
    loop.run(Checkpoints(work=tmp_path))
    assert (changed[1], changed[2]) == ([set(), set()], [set(), set()])
    assert all({"first.0.weight", "first.1.running_mean"} <= names for names in changed[3])


@pytest.mark.parametrize("method", ["mean_teacher", "fixmatch", "unimatch", "cross_pseudo"])
def test_without_images_without_masks_consistency_trains_on_masks_alone(method: str, tmp_path: Path) -> None:
    """The method then is segmentation, but that of both networks that learn from each other on labelled images."""
    weights = []
    for task, block in (("segmentation", {}), ("consistency", {"consistency": {"method": method, "weight": 0.0}})):
        loop = Setting(settings=stage(task, epochs=2, **block), validates=False, has_unlabelled=False).make()
        loop.run(Checkpoints(work=tmp_path / task))
        weights.append(loop.network.state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("method", ["mean_teacher", "fixmatch", "unimatch", "cross_pseudo"])
def test_the_kept_network_of_every_method_learns_eight_images_by_heart(tmp_path: Path, method: str) -> None:
    block: dict[str, object] = {"method": method} | ({"momentum": 0.9} if method == "mean_teacher" else {})
    settings = stage("consistency", epochs=75, optimizer={"lr": 1e-2}, consistency=block)
    loop = Setting(settings=settings, validates=False).make()

    def mean_iou() -> float:
        loop.network.eval()
        parts = [loop.task.statistics(loop.network, batch) for (batch,) in loop.loader.training(0, 0)]
        return loop.task.scores(torch.stack(parts).sum(dim=0))["mean_iou"]

    before = mean_iou()
    loop.network.load_state_dict(loop.run(Checkpoints(work=tmp_path, pause=3600)).weights)
    assert mean_iou() > 0.75 > 2 * before


OVERFIT: dict[str, float] = {
    "reconstruction": 0.01,
    "classification": 0.1,
    "localisation": 0.002,
    "segmentation": 0.25,
    "adversarial": 0.25,
    "pseudo_labels": 0.5,
}


@pytest.mark.parametrize(("task", "goal"), OVERFIT.items(), ids=OVERFIT.keys())
def test_network_learns_eight_images_by_heart(tmp_path: Path, task: str, goal: float) -> None:
    judge = {"adversarial": {"discriminator": {"name": "patchgan", "receptive_field": 16}}}
    more = judge if task == "adversarial" else {}
    epochs = 75 if task == "adversarial" else 150  # two networks take twice as long
    setting = Setting(settings=stage(task, epochs=epochs, optimizer={"lr": 1e-2}, **more), validates=False)
    losses = [row["train/loss"] for row in setting.make().run(Checkpoints(work=tmp_path, pause=3600)).history]

    assert losses[-1] < goal < losses[0] / 3, losses


PARTS: dict[str, tuple[Setting, float]] = {
    "pseudo-labels": (Setting(settings=stage("pseudo_labels", pseudo_labels={"weight": 0.5})), 0.5),
    "scribbles": (Setting(settings=stage("segmentation", rest="scribble", weak={"weight": 2.0})), 2.0),
    "fixmatch": (Setting(settings=stage("consistency", consistency={"method": "fixmatch", "confidence": 0.6})), 1.0),
    "adversarial": (Setting(settings=stage("adversarial", adversarial={"lambda2": 0.1})), 1.0),
}
"""Stages that also learn from images without masks, and the weight of these."""


@pytest.mark.parametrize(("setting", "weight"), PARTS.values(), ids=PARTS)
def test_the_history_has_the_losses_of_both_kinds_of_images(setting: Setting, weight: float, tmp_path: Path) -> None:
    for row in setting.loop(tmp_path).history:
        parts = row["train/labelled_loss"] + weight * row["train/unlabelled_loss"]
        assert row["train/loss"] == pytest.approx(parts, rel=1e-5)
        assert row["train/unlabelled_loss"] > 0


def test_the_history_has_the_share_of_pixels_with_a_pseudo_label(tmp_path: Path) -> None:
    """A fifth of the pixels of the made-up labels is ignored."""
    history = PARTS["pseudo-labels"][0].loop(tmp_path).history
    assert [row["train/confident"] for row in history] == pytest.approx([0.8] * len(history), abs=0.01)


def test_fewer_pixels_are_confident_at_a_higher_confidence(tmp_path: Path) -> None:
    shares = []
    for confidence in (0.5, 0.6):
        settings = stage("consistency", epochs=1, consistency={"method": "fixmatch", "confidence": confidence})
        shares.append(Setting(settings=settings).loop(tmp_path / str(confidence)).history[0]["train/confident"])
    assert shares[0] == 1 > shares[1] > 0


def test_without_images_without_masks_their_values_are_undefined(tmp_path: Path) -> None:
    setting = Setting(settings=stage("pseudo_labels", epochs=1), has_unlabelled=False)
    (row,) = setting.loop(tmp_path).history
    assert row["train/labelled_loss"] == row["train/loss"]
    assert math.isnan(row["train/unlabelled_loss"])
    assert math.isnan(row["train/confident"])
