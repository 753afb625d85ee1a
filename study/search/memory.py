"""What to say where a stage does not fit into memory."""

import gc
import math

import torch

from models.tasks.base import Batch
from study.job import Job, Surroundings
from study.stage import open_bench

LATE = 10**9
"""An update from which on a task does all that it ever does."""


def too_large(job: Job, surroundings: Surroundings, device: torch.device, error: torch.OutOfMemoryError) -> str:
    """Return why a stage failed and the largest batch that fits, found by halving and trying.

    With several workers this is none of them, and cannot try.
    """
    settings = job.node.step.settings
    if surroundings.workers > 1:
        return _refusal(job, "lower it, or image.size, or take more workers")
    error.__traceback__ = None  # it holds on to the tensors that did not fit
    images = math.ceil(settings.batch_size / settings.accumulate) // 2
    while images and not _fits(job, surroundings, device, images):
        images //= 2
    if not images:
        return _refusal(job, "not even one image fits; lower image.size")
    remedy = f"batch_size {images * settings.accumulate} fits; set that"
    if settings.task != "adversarial":  # which knows no parts
        remedy += f", or accumulate {math.ceil(settings.batch_size / images)}"
    return _refusal(job, remedy)


def _refusal(job: Job, remedy: str) -> str:
    step = job.node.step
    asked = f"stages.{step.stage}.batch_size {step.settings.batch_size}"
    return f"out of memory with {asked}; allowed: what the device holds; {remedy}"


def _fits(job: Job, surroundings: Surroundings, device: torch.device, size: int) -> bool:
    """Return whether so many images pass forwards and backwards, through each network that learns from them."""
    _forget(device)
    try:
        bench = open_bench(job, surroundings)
        network, image = bench.network.to(device).train(), job.node.step.image
        rivals = bench.task.rivals(image.channels)
        for rival in rivals.values():
            rival.network.to(device)
        rows = list(bench.reading.train[:1]) * size
        targets = None if bench.arrays.targets is None else torch.from_numpy(bench.arrays.targets[rows]).to(device)
        pixels = torch.zeros(size, image.channels, image.size, image.size, device=device)
        batch = Batch(
            images=pixels, target=pixels if targets is None else targets, unlabelled=pixels if rivals else None,
            update=LATE,
        )  # fmt: skip
        half = job.node.step.settings.precision == "bf16"
        turns = bench.task.turns(network, batch)
        while True:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                turn = next(turns, None)
            if turn is None:
                break
            turn.loss.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return False
    finally:
        _forget(device)
    return True


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
