"""What to say where a stage does not fit into memory."""

import gc
import math

import torch

from models.tasks.base import Batch
from study.planning.checks.spec_checks import least_at_once
from study.training.job import RuntimeContext, StageJob
from study.training.train_stage import open_setup

OutOfMemoryError = torch.OutOfMemoryError
LATE = 10**9
"""An update from which on a task does all that it ever does."""


def too_large(job: StageJob, runtime: RuntimeContext, device: torch.device, error: OutOfMemoryError) -> str:
    """Return why a stage failed and the largest batch that fits, found by halving and trying.

    With several workers this is none of them, and cannot try.
    """
    step = job.node.step
    asked, parts = step.settings.batch_size, step.settings.accumulate
    if runtime.workers > 1:
        return _refusal(job, "lower it, or image.size, or take more workers")
    error.__traceback__ = None  # it holds on to the tensors that did not fit
    least = least_at_once(step)
    images = math.ceil(asked / parts) // 2
    while images >= least and not _fits(job, runtime, device, images):
        images //= 2
    if images < least:
        return _refusal(job, f"not even {least} at once {'fits' if least == 1 else 'fit'}; lower image.size")
    remedy = f"batch_size {images * parts} fits; set that"
    more = math.ceil(asked / images)
    if step.settings.task != "adversarial" and asked // more >= least:  # that task knows no parts
        remedy += f", or accumulate {more}"
    return _refusal(job, remedy)


def _refusal(job: StageJob, remedy: str) -> str:
    step = job.node.step
    asked = f"stages.{step.stage}.batch_size {step.settings.batch_size}"
    return f"out of memory with {asked}; allowed: what the device holds; {remedy}"


def _fits(job: StageJob, runtime: RuntimeContext, device: torch.device, size: int) -> bool:
    """Return whether so many images pass forwards and backwards, through each network that learns from them."""
    _forget(device)
    try:
        _pass(job, runtime, device, size)
    except OutOfMemoryError:
        return False
    except ValueError:  # what some networks say of one image, over which nothing can be normalised
        if size > 1:
            raise
        return False
    finally:
        _forget(device)
    return True


def _pass(job: StageJob, runtime: RuntimeContext, device: torch.device, size: int) -> None:
    setup, image = open_setup(job, runtime), job.node.step.image
    network, adversarial_networks = setup.network.to(device).train(), setup.task.adversarial_networks(image.channels)
    for rival in adversarial_networks.values():
        rival.network.to(device)
    rows = list(setup.reading.train[:1]) * size
    pixels = torch.zeros(size, image.channels, image.size, image.size, device=device)
    targets = None if setup.arrays.targets is None else torch.from_numpy(setup.arrays.targets[rows]).to(device)
    batch = Batch(
        images=pixels,
        target=pixels if targets is None else targets,
        unlabelled=pixels if adversarial_networks else None,
        update=LATE,
    )
    half, updates = job.node.step.settings.precision == "bf16", setup.task.updates(network, batch)
    while True:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            update = next(updates, None)
        if update is None:
            return
        update.loss.backward()  # type: ignore[no-untyped-call]


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
