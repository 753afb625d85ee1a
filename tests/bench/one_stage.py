"""One stage: its training compared with bare steps on tensors in memory, and the complete stage with a script.

Both sides have one core, as a stage or a trial has on a busy machine; there CPU seconds equal the wall-clock time
of an idle machine.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.loading.batches import Batches
from datasets.loading.examples import WholeImages
from datasets.source import Pixels
from models.build import Blueprint, build
from models.tasks import make_task
from models.tasks.base import Outputs
from study.config.schema import Checkpoint, Link
from study.config.stages import SegmentationStage
from study.search.load import load_plan
from study.training.checkpoint import Checkpoints
from study.training.job import RuntimeContext, stage_job
from study.training.loader import StageData, WorkerContext
from study.training.train_stage import run_stage
from study.training.trainer import TrainingLoop
from tests.bench.chest import SIZE, chest_images, chest_study, script_study, shrunk
from tests.bench.figure import Figure, against_best, cpu_seconds, interleaved, ratio
from tests.bench.process import in_separate_process

BATCH, CLASSES = 8, ("lung", "heart")
ARCHITECTURES = {"unet": "Unet", "deeplabv3plus": "DeepLabV3Plus", "fpn": "FPN"}
UPDATES = {64: (16, 5), 128: (6, 3), 256: (2, 3)}
"""Updates and rounds by size, of about equal duration."""
EPOCHS = {SIZE: (8, 5), 128: (4, 3)}
"""Epochs and rounds by size for complete stages."""
TRAINING_SECONDS, STAGE_SECONDS = 50.0, 150.0
"""Time in seconds within which further rounds of a comparison end."""
WHY = "convolutions take most of a stage on either side"
LAYOUTS = {"bare steps": torch.contiguous_format, "bare steps, channels last": torch.channels_last}
"""Memory formats of the bare steps, of which the faster one is the limit."""
NEVER = 1e9
"""Seconds between checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The data of both sides: resnet18, one channel, two overlapping classes."""

    architecture: str
    images: Pixels
    masks: Pixels

    @classmethod
    def random_noise(cls, architecture: str, side: int, updates: int) -> "Lesson":
        """Draw noise: the speed does not depend on the pixel values."""
        random, count = np.random.default_rng(0), updates * BATCH
        return cls(
            architecture=architecture,
            images=random.integers(0, 256, (count, side, side, 1), dtype=np.uint8),
            masks=random.integers(0, 2, (count, len(CLASSES), side, side), dtype=np.uint8),
        )


def one_stage(*, quick: bool) -> Iterator[Figure]:
    """Measure 3 architectures x 3 sizes (quick: one at 64 px), then complete stages of small PNGs."""
    torch.set_num_threads(1)
    for architecture in list(ARCHITECTURES)[: 1 if quick else None]:
        for side, (updates, rounds) in list(UPDATES.items())[: 1 if quick else None]:
            lesson = Lesson.random_noise(architecture, side, updates)
            bare_steps(lesson)()  # the first calls of torch are slow
            makers = {name: partial(bare_steps, layout=layout) for name, layout in LAYOUTS.items()} | {"loop": looped}
            with _one_core():
                calls = {name: partial(_fresh, make, lesson) for name, make in makers.items()}
                best, results = against_best(
                    "loop", calls, 2 if quick else rounds, within=TRAINING_SECONDS, length=float
                )
            yield ratio(f"training of {architecture}, {side} px, against {best}", results[best], results["loop"], 0.95)
    yield from _against_script(quick=quick)


def bare_steps(lesson: Lesson, *, layout: torch.memory_format = torch.contiguous_format) -> Callable[[], None]:
    """Return an epoch of the library's network under torch's own losses, on tensors in memory."""
    from models.encoders.vision import smp

    network = getattr(smp, ARCHITECTURES[lesson.architecture])(
        "resnet18", encoder_weights=None, in_channels=1, classes=len(CLASSES)
    ).train()
    network.to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters())
    # With one channel both memory formats are equal; torch selects its kernels by the strides.
    pixels = torch.from_numpy(lesson.images).permute(0, 3, 1, 2)
    images = pixels.float().div(255).clone(memory_format=layout)
    masks = torch.from_numpy(lesson.masks).float()

    def steps() -> None:
        for pixels, target in zip(images.split(BATCH), masks.split(BATCH), strict=True):
            loss = _loss(network, pixels, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def _loss(network: nn.Module, pixels: Tensor, target: Tensor) -> Tensor:
    logits = network(pixels)
    p, over = logits.sigmoid(), (0, 2, 3)
    dice = 2 * (p * target).sum(over) / (p.sum(over) + target.sum(over))
    return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()


def looped(lesson: Lesson) -> Callable[[], object]:
    """Return the same epoch of the platform's loop, without validation."""
    settings = SegmentationStage(data="bench", epochs=1, batch_size=BATCH)
    task = make_task(settings, Outputs(names=CLASSES))
    network = build(Blueprint(
        architecture=lesson.architecture, backbone="resnet18", channels=1, outputs=len(CLASSES),
        shape=lesson.images.shape[1:3],
    ))  # fmt: skip
    training = Batches(WholeImages(lesson.images, lesson.masks, range(len(lesson.images))), batch_size=BATCH, seed=0)
    loop = TrainingLoop(
        network, task, settings, Link(stage="bench"), StageData(training=training), seed=0,
        context=WorkerContext(report=lambda _: None),
    )  # fmt: skip
    return lambda: loop.run(Checkpoints(work=Path("never-written"), pause=NEVER))


def _against_script(*, quick: bool) -> Iterator[Figure]:
    """Measure target stages in this process: data opened, trained with augmentation, validated, tested; one core."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        folder = Path(place)
        images = chest_images(folder / "made")
        for side, (epochs, rounds) in {SIZE: (2, 2)}.items() if quick else EPOCHS.items():
            small = shrunk(images, folder / str(side), side=side)
            changes = {
                "image.size": side, "stages.segment.epochs": epochs,
                "pathways": {"none": ["segment"]}, "compare.labelled_fraction": [1.0],
            }  # fmt: skip
            document = chest_study(small, changes)
            stage = _Stage(document, folder / f"cache-{side}")
            hand = script_study(document, folder / f"hand-{side}")
            with in_separate_process(partial(cpu_seconds, stage.run)) as prepare:
                prepare()
            calls: dict[str, Callable[[], object]] = {"stage": stage.run}
            calls |= {workers: partial(_scripted, hand, int(workers)) for workers in ("0" if quick else "01")}
            with _one_core(), ExitStack() as processes:
                sides = {
                    name: processes.enter_context(in_separate_process(partial(cpu_seconds, call)))
                    for name, call in calls.items()
                }
                interleaved(sides, 1)  # warm-up
                best, results = against_best("stage", sides, rounds, within=STAGE_SECONDS, length=float)
            what = f"stage of small PNGs, {side} px, against the script's ({best} workers)"
            yield ratio(what, results[best], results["stage"], 1.1, why=WHY)


class _Stage:
    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        self._plan, self._folder = load_plan(document, file="chest", cache=folder), folder
        self._job = stage_job(self._plan, next(iter(self._plan.nodes.values())))

    def run(self) -> None:
        """Run the stage from a prepared cache to its publication."""
        with tempfile.TemporaryDirectory(prefix="b-") as storage:
            runtime = RuntimeContext(storage=Path(storage), cache=self._folder, cpus=1, checkpoint=Checkpoint())
            run_stage(self._job, runtime, WorkerContext(report=lambda _: None))


def _scripted(hand: dict[str, Any], workers: int) -> None:
    from tests.bench.scripts.chain import Machine, run_chain

    run_chain(hand, "none", 0, 1.0, Machine(threads=1, workers=workers))


@contextmanager
def _one_core() -> Iterator[None]:
    """Restrict this process and its children to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _fresh(make: Callable[[Lesson], Callable[[], object]], lesson: Lesson) -> float:
    """Time an epoch of a new network and optimizer: only training is timed, not their creation."""
    return cpu_seconds(make(lesson))
