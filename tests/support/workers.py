"""Processes in one distributed group, like the workers of a stage, without Ray."""

import datetime
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # its functions keep the group and the threads that exist at import
import torch.multiprocessing as processes

Member = Callable[[int, int], object]


def together(world: int, member: Member) -> list[Any]:
    """Call a function of rank and world size in `world` processes, and return the results by rank."""
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(_member, args=(world, member, folder), nprocs=world)  # type: ignore[no-untyped-call]
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(world)]


def _member(rank: int, world: int, member: Member, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    try:
        torch.save(member(rank, world), Path(folder) / str(rank))
    finally:
        dist.destroy_process_group()
