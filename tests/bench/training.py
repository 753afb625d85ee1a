"""What the training loop adds to bare torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.batches import Batches
from datasets.sample import Pixels
from models.build import Blueprint, build
from models.network import Network
from models.optimize import make_optimizer
from models.tasks import make_task
from models.tasks.base import Batch, Outputs, Task
from study.checkpoint import Checkpoints
from study.spec import Link
from study.stages import SegmentationStage
from study.train import CPU, Context, Loop, to_images
from tests.bench.figure import Figure, cpu_seconds

SIDE, BATCH, CLASSES = 64, 8, ("lung", "heart")
NEVER = 1e9
"""Seconds between checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What both ways train on: U-Net on resnet18, one channel, two overlapping classes."""

    task: Task
    settings: SegmentationStage
    images: Pixels
    masks: Pixels

    def network(self) -> Network:
        """Return the network with its first weights."""
        torch.manual_seed(0)
        outputs = self.task.head_channels()
        return build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=outputs))


def loop(*, quick: bool) -> Iterator[Figure]:
    """Measure processor time of the loop over that of bare steps on tensors in memory."""
    torch.set_num_threads(1)
    lesson = _lesson(updates=4 if quick else 20)
    _bare(lesson)()  # the first calls of torch are slow
    pairs = [(cpu_seconds(_looped(lesson)), cpu_seconds(_bare(lesson))) for _ in range(2 if quick else 7)]
    ratios = [looped / bare for looped, bare in pairs]
    yield Figure(name="training loop over bare torch steps, 64 px", unit="ratio", values=ratios, goal=1.1)


def _lesson(*, updates: int) -> Lesson:
    random, count = np.random.default_rng(0), updates * BATCH
    settings = SegmentationStage(data="bench", steps=updates, batch_size=BATCH)
    return Lesson(
        task=make_task(settings, Outputs(names=CLASSES)),
        settings=settings,
        images=random.integers(0, 256, (count, SIDE, SIDE, 1), dtype=np.uint8),
        masks=random.integers(0, 2, (count, len(CLASSES), SIDE, SIDE), dtype=np.uint8),
    )


def _bare(lesson: Lesson) -> Callable[[], None]:
    network = lesson.network().train()
    optimizer = make_optimizer(lesson.settings.optimizer, network.parameters())
    images, masks = to_images(torch.from_numpy(lesson.images), CPU), torch.from_numpy(lesson.masks)

    def steps() -> None:
        for pixels, target in zip(images.split(BATCH), masks.split(BATCH), strict=True):
            loss = lesson.task.loss(network, Batch(images=pixels, target=target))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return steps


def _looped(lesson: Lesson) -> Callable[[], object]:
    training = Batches(lesson.images, lesson.masks, range(len(lesson.images)), batch_size=BATCH, seed=0)
    made = Loop(
        lesson.network(), lesson.task, lesson.settings, Link(stage="bench"),
        training=training, validation=None, seed=0, context=Context(report=lambda _: None),
    )  # fmt: skip
    return lambda: made.run(Checkpoints(work=Path("never-written"), pause=NEVER))
