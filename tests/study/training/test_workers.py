"""How many workers train a stage changes nothing in what it learns."""

import functools
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from study.config.schema import Link
from study.training.checkpoint import Checkpoints
from tests.support.loops import Killed, Setting, stage
from tests.support.workers import together

TEACHER = {"backbone": "tu-test_vit", "initial_weights": "random"}
AUGMENT = {"flip": 0.5, "rotate": 10}
SETTINGS = {
    "every batch-wise loss, weight decay of kernels": Setting(
        settings=stage("segmentation", loss={"dice": 1.0, "binary_cross_entropy": 1.0, "focal": 0.5}, l2=1e-3,
                       augment=AUGMENT)
    ),
    "last batches smaller than the workers": Setting(settings=stage("segmentation", batch_size=3, augment=AUGMENT)),
    "labels that are not known": Setting(settings=stage("classification", batch_size=3)),
    "points, clipped": Setting(settings=stage("localisation", clip_norm=0.5)),
    "images": Setting(settings=stage("reconstruction", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9})),
    "hidden squares": Setting(settings=stage("masked_reconstruction", batch_size=3, augment=AUGMENT)),
    "hidden patches": Setting(
        settings=stage("masked_reconstruction", batch_size=3, method="mae", decoder_width=32, decoder_depth=1)
    ),
    "features of a teacher": Setting(
        settings=stage("feature_distillation", batch_size=3, augment=AUGMENT, teacher=TEACHER)
    ),
    "embeddings of two views": Setting(
        settings=stage("contrastive", epochs=2, batch_size=3, hidden=16, projection=8, temperature=0.5,
                       optimizer={"name": "sgd", "lr": 0.01})
    ),
    "predictions of views, last batches smaller than the workers": Setting(
        settings=stage("self_distillation", batch_size=3, hidden=16, projection=8,
                       optimizer={"name": "sgd", "lr": 0.01})
    ),
    "a queue and a momentum network, parts of batches": Setting(
        settings=stage("contrastive", batch_size=8, accumulate=2, hidden=16, projection=8, queue=20, momentum=0.9,
                       optimizer={"name": "sgd", "lr": 0.01})
    ),
    "a discriminator": Setting(
        settings=stage("adversarial", epochs=2, batch_size=3, adversarial={
            "lambda1": 0.5, "lambda2": 0.5, "lambda_semi": 0.5, "semi_start": 0,
            "discriminator": {"name": "patchgan", "receptive_field": 16}})
    ),
    "images without masks alone, after supervised training": Setting(
        settings=stage("adversarial", epochs=2, batch_size=3, adversarial={
            "lambda2": 0.5, "unlabelled_start": 2, "freeze_discriminator": True, "unlabelled_only": True,
            "discriminator": {"name": "patchgan", "receptive_field": 16}})
    ),
    **{
        f"{name}, last batches smaller than the workers": Setting(
            settings=stage("consistency", epochs=2, batch_size=3, augment=AUGMENT, l2=1e-3,
                           optimizer={"name": "sgd", "lr": 0.01}, consistency=block)
        )
        for name, block in {
            "mean teacher": {"method": "mean_teacher", "momentum": 0.5},
            "fixmatch": {"method": "fixmatch", "confidence": 0.3, "ramp_up": 0.5},
            "unimatch": {"method": "unimatch", "confidence": 0.3, "cutmix": 1.0},
            "cross pseudo supervision": {"method": "cross_pseudo", "cutmix": 0.0},
            "cross pseudo supervision with CutMix": {"method": "cross_pseudo"},
        }.items()
    },
    **{
        f"weak labels, {kind}, last batches smaller than the workers": Setting(
            settings=stage("segmentation", epochs=2, batch_size=3, augment=AUGMENT, rest=kind,
                           optimizer={"name": "sgd", "lr": 0.01}, weak={"ramp_up": 0.5})
        )
        for kind in ("box", "points", "scribble", "class")
    },
    **{
        f"{labels} pseudo-labels, last batches smaller than the workers": Setting(
            settings=stage("pseudo_labels", epochs=2, batch_size=3, augment=AUGMENT,
                           optimizer={"name": "sgd", "lr": 0.01}, pseudo_labels={"labels": labels, "weight": 0.5})
        )
        for labels in ("hard", "soft")
    },
    "averaged weights at a constant rate": Setting(
        settings=stage("segmentation", average={"start": 0.5, "lr": 0.01}, schedule={"name": "cosine"})
    ),
    "averaged weights": Setting(settings=stage("segmentation", batch_size=3, average={"start": 0.5})),
    "moving average and layer-wise rates": Setting(
        settings=stage("segmentation", batch_size=3, average={"name": "ema", "decay": 0.9},
                       loss={"focal_tversky": 1.0, "cldice": 1.0, "boundary": 0.1, "binary_cross_entropy": 1.0},
                       label_smoothing=0.2, optimizer={"layer_decay": 0.5}, schedule={"name": "poly", "warmup": 0.2})
    ),
    "adapters": Setting(settings=stage("segmentation", batch_size=3, adapt={"name": "lora", "rank": 2})),
    "normalisation layers": Setting(settings=stage("segmentation", adapt="norm")),
    "parts of batches": Setting(settings=stage("segmentation", batch_size=8, accumulate=3)),
    "frozen, then not": Setting(
        settings=stage("segmentation"), link=Link(stage="one", freeze=("encoder",), unfreeze_after=2)
    ),
}  # fmt: skip


def trained(rank: int, world: int) -> dict[str, tuple[dict[str, torch.Tensor], list[dict[str, float]]]]:
    """Return weights and history of every setting."""
    found = {}
    for name, setting in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            done = setting.make(rank=rank, world=world).run(Checkpoints(work=Path(folder)))
        found[name] = ({key: tensor.clone() for key, tensor in done.weights.items()}, done.history)
    return found


def interrupted(folder: Path, rank: int, world: int) -> list[Any]:
    """Return what came out of training to the end, and out of training that was cut off and resumed."""
    setting, found = SETTINGS["averaged weights"], []
    for crash_after, work, begin in ((None, "whole", 1), (2, "cut off", 1), (None, "cut off", 2)):
        loop = setting.make(rank=rank, world=world, crash_after=crash_after, weights_seed=begin)
        with suppress(Killed):
            done = loop.run(Checkpoints(work=folder / work))
            found.append(({key: tensor.clone() for key, tensor in done.weights.items()}, done.history))
    return found


def apart(folder: Path, rank: int, world: int) -> list[Any]:
    """Return what came out of training to the end, and of training resumed where one worker sees no checkpoint."""
    setting, found = SETTINGS["images"], []
    with suppress(Killed):
        setting.make(rank=rank, world=world, crash_after=2).run(Checkpoints(work=folder / "seen"))
    for place in ("whole", "seen" if rank == 0 else "unseen"):
        done = setting.make(rank=rank, world=world).run(Checkpoints(work=folder / place))
        found.append(done.history)
    return found


@functools.cache
def runs(world: int) -> list[Any]:
    if world > 1:
        return together(world, trained)
    torch.set_num_threads(1)
    return [trained(0, 1)]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("world", [2, 3])
def test_workers_learn_what_one_learns(world: int, name: str) -> None:
    ((weights, history),) = (run[name] for run in runs(1))
    for other_weights, other_history in (run[name] for run in runs(world)):
        for row, other in zip(history, other_history, strict=True):
            assert other == pytest.approx(row, rel=1e-3, abs=1e-4, nan_ok=True)
        assert other_weights.keys() == weights.keys()
        for key, tensor in weights.items():
            torch.testing.assert_close(other_weights[key], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("world", [2, 3])
def test_workers_end_with_the_same_bits(world: int) -> None:
    first, *others = runs(world)
    for name, (weights, history) in first.items():
        for other in others:
            assert repr(other[name][1]) == repr(history)
            assert all(torch.equal(other[name][0][key], tensor) for key, tensor in weights.items()), name


def test_workers_that_were_cut_off_go_on_to_the_same_bits(tmp_path: Path) -> None:
    for (weights, history), (other_weights, other_history) in together(2, functools.partial(interrupted, tmp_path)):
        assert repr(other_history) == repr(history)
        assert all(torch.equal(other_weights[key], tensor) for key, tensor in weights.items())


def test_all_workers_go_on_from_what_the_first_sees(tmp_path: Path) -> None:
    for whole, resumed in together(2, functools.partial(apart, tmp_path)):
        assert repr(resumed) == repr(whole)
