"""What to say where a stage does not fit into memory."""

import gc

import torch

from models.tasks.base import Batch
from study.job import Job, Surroundings
from study.stage import open_bench


def too_large(job: Job, surroundings: Surroundings, device: torch.device, error: torch.OutOfMemoryError) -> str:
    """Return why a stage failed and the largest batch that fits, found by halving and trying.

    With several workers this is none of them, and cannot try.
    """
    asked = job.node.step.settings.batch_size
    if surroundings.workers > 1:
        return _refusal(job, "lower it, or image.size, or take more workers")
    error.__traceback__ = None  # it holds on to the tensors that did not fit
    batch = asked // 2
    while batch and not _fits(job, surroundings, device, batch):
        batch //= 2
    remedy = f"batch_size {batch} fits; set that" if batch else "not even one image fits; lower image.size"
    return _refusal(job, remedy)


def _refusal(job: Job, remedy: str) -> str:
    step = job.node.step
    asked = f"stages.{step.stage}.batch_size {step.settings.batch_size}"
    return f"out of memory with {asked}; allowed: what the device holds; {remedy}"


def _fits(job: Job, surroundings: Surroundings, device: torch.device, size: int) -> bool:
    """Return whether the network passes so many images forwards and backwards."""
    _forget(device)
    try:
        bench = open_bench(job, surroundings)
        network, image = bench.network.to(device).train(), job.node.step.image
        rows = list(bench.reading.train[:1]) * size
        targets = None if bench.arrays.targets is None else torch.from_numpy(bench.arrays.targets[rows]).to(device)
        pixels = torch.zeros(size, image.channels, image.size, image.size, device=device)
        turn = next(bench.task.turns(network, Batch(images=pixels, target=pixels if targets is None else targets)))
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
