"""Messages about stages that run out of GPU memory, with the largest batch size that fits."""

import gc
import math

import numpy as np
import torch

from models.build import build
from models.network import Network
from models.settings import pool_of, unlabelled_start_of
from models.task_settings.consistency import ConsistencyBlock, consistency_of
from models.task_settings.views import views_of
from models.task_settings.weak_labels import WeakKind, weak_kind_of
from models.tasks.base import Batch, Task, WeakTarget
from models.tasks.weak_labels.pseudo import PseudoLabels
from study.planning.arms import StageConfig
from study.planning.blueprint import stage_blueprint
from study.planning.checks.spec_checks import min_batch_size
from study.training.job import RuntimeContext, StageJob
from study.training.train_stage import adapt_encoder, open_setup, stage_examples

OutOfMemoryError = torch.OutOfMemoryError
LATE = 10**9
"""An update number in the last phase of a task."""
BOXES = 4
"""Number of boxes of each class in a batch with boxes."""


def too_large(job: StageJob, runtime: RuntimeContext, device: torch.device, error: OutOfMemoryError) -> str:
    """Return the error message of a stage with the largest batch size that fits, found by halving.

    With several workers the batch size is not searched, because this process has no GPU.
    """
    step = job.node.step
    batch_size, parts = step.settings.batch_size, step.settings.accumulate
    if runtime.workers > 1:
        return _message(job, "lower it, or image.size, or take more workers")
    error.__traceback__ = None  # it references the tensors that did not fit
    min_images = min_batch_size(step)
    images = math.ceil(batch_size / parts) // 2
    while images >= min_images and not _fits(job, runtime, device, images):
        images //= 2
    if images < min_images:
        return _message(job, f"not even {min_images} at once {'fits' if min_images == 1 else 'fit'}; lower image.size")
    remedy = f"batch_size {images * parts} fits; set that"
    accumulate = math.ceil(batch_size / images)
    if pool_of(step.settings) is None and batch_size // accumulate >= min_images:
        remedy += f", or accumulate {accumulate}"
    return _message(job, remedy)


def _message(job: StageJob, remedy: str) -> str:
    step = job.node.step
    setting = f"stages.{step.stage}.batch_size {step.settings.batch_size}"
    return f"out of memory with {setting}; allowed: what the device holds; {remedy}"


def _fits(job: StageJob, runtime: RuntimeContext, device: torch.device, size: int) -> bool:
    """Return whether a batch of this size fits in a forward and backward pass of all networks."""
    _free_memory(device)
    try:
        _train_step(job, runtime, device, size)
    except OutOfMemoryError:
        return False
    except ValueError:  # some networks cannot normalize a single image
        if size > 1:
            raise
        return False
    finally:
        _free_memory(device)
    return True


def _train_step(job: StageJob, runtime: RuntimeContext, device: torch.device, size: int) -> None:
    setup, step = open_setup(job, runtime), job.node.step
    settings, image = step.settings, step.image
    network = _prepared(setup.network, step, device)
    companions = setup.task.companions(
        network, lambda: _prepared(build(stage_blueprint(step, setup.task.head_channels())), step, device)
    )
    for companion in companions.values():
        companion.module.to(device)
    examples = stage_examples(setup, setup.rows.train[:1], trains=False)
    _, target = examples.read(np.zeros(size, dtype=np.int64))
    pixels = torch.zeros(size, image.channels, *image.shape, device=device)
    targets = None if target is None else torch.from_numpy(target).to(device)
    block = consistency_of(settings)
    is_bf16 = settings.precision == "bf16"
    for number in (0, LATE) if unlabelled_start_of(settings) else (LATE,):
        batch = Batch(
            images=pixels,
            target=pixels if targets is None else targets,
            unlabelled=pixels if pool_of(settings) is not None else None,
            unlabelled_views=(pixels,) * (block.views if block is not None else 1),
            pasted=_pasted(block, pixels) if block is not None and block.cutmix else None,
            unlabelled_keys=range(size),
            weak=_weak_target(weak_kind_of(settings), setup.task, size, image.shape, device),
            update=number,
            keys=range(size),
            views=(pixels,) * views_of(settings),
            positions=torch.zeros(size, dtype=torch.int64, device=device),
        )
        updates = setup.task.updates(network, batch)
        while True:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
                update = next(updates, None)
            if update is None:
                break
            update.loss.backward()  # type: ignore[no-untyped-call]


def _weak_target(
    kind: WeakKind | None, task: Task, size: int, shape: tuple[int, int], device: torch.device
) -> WeakTarget | None:
    """Return weak labels or pseudo-labels of a batch, None for stages without any.

    With weak labels every class is present, with `BOXES` boxes of a quarter of the image.
    """
    classes = len(task.outputs.names)
    planes = () if task.outputs.exclusive else (classes,)
    if isinstance(task, PseudoLabels):
        planes = (classes,) if task.block.labels == "soft" else planes
        return WeakTarget(masks=torch.zeros(size, *planes, *shape, dtype=torch.uint8, device=device))
    if kind is None:
        return None
    masks = torch.zeros(size, *planes, *shape, dtype=torch.uint8, device=device)
    box = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]], device=device)
    numbers = torch.arange(classes, device=device).repeat(BOXES).expand(size, -1)
    return WeakTarget(
        masks=masks if kind in ("points", "scribble") else None,
        present=None if kind == "scribble" else torch.ones(size, classes, device=device),
        boxes=box.expand(*numbers.shape, 4, 2) if kind == "box" else None,
        box_classes=numbers if kind == "box" else None,
        areas=torch.ones(classes, 2, device=device) if kind in ("points", "class") else None,
    )


def _prepared(network: Network, step: StageConfig, device: torch.device) -> Network:
    """Return a network on the device in training mode, of which the parts are trained that the stage trains."""
    adapt_encoder(network, step)
    network.to(device).train()
    if step.link.unfreeze_after is None:  # otherwise all parts are trained in the end
        network.freeze(step.link.freeze, keep_dropout=step.link.keep_dropout)
    return network


def _pasted(block: ConsistencyBlock, images: torch.Tensor) -> torch.Tensor:
    """Return regions of the strong views of images."""
    height, width = images.shape[-2:]
    return torch.zeros(len(images), block.strong_views, height, width, dtype=torch.bool, device=images.device)


def _free_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
