"""Checks whether this machine can run studies: versions, CPU cores, GPUs, storage, cache, published weights."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from models.catalog import hub
from models.catalog.hub_cache import cache_folder
from study.monitoring.forecast import GPUS
from study.store.store import Store

LIBRARIES = ("torch", "ray", "segmentation-models-pytorch", "timm", "albumentations", "pyarrow")
LOW_DISK = 5 * 2**30
SHARED_MEMORY = Path("/dev/shm")
LOW_SHARED_MEMORY = 2**29


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        line: What was found.
        sound: False if studies cannot run.
        remedy: What to do about it, "" if there is nothing to do.
    """

    line: str
    sound: bool = True
    remedy: str = ""


def findings(storage: Path, cache: Path) -> Iterator[Finding]:
    """Yield the result of each check."""
    yield Finding(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from map(_library, LIBRARIES)
    yield Finding(f"CPU cores    {os.cpu_count()}")
    yield _gpus()
    yield from shared_memory(SHARED_MEMORY)
    for name, folder in (("storage", storage), ("cache", cache)):
        yield _folder(name, folder)
    if hub.reachable():
        yield Finding("weights      the hub of published weights answers")
    else:
        yield Finding(
            f"weights      the hub cannot be reached: imagenet starts work from files in {cache_folder()} only",
            remedy="fetch them once where there is a network (`study plan` says which), and set HF_HOME to that cache",
        )


def _library(name: str) -> Finding:
    try:
        return Finding(f"library      {name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        remedy = "install the wheel of the platform again (pip install --force-reinstall FILE.whl)"
        return Finding(f"library      {name} is not installed", sound=False, remedy=remedy)


def _gpus() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if names:
        return Finding(f"GPUs         {', '.join(names)}")
    if not any(GPUS.glob("*")):
        return Finding("GPUs         none; studies run on the CPU")
    if torch.version.cuda is None:
        build, remedy = (
            "is a build for CPUs",
            "install the torch of the package index (pip install --force-reinstall torch)",
        )
    else:
        build = f"is built for CUDA {torch.version.cuda}"
        remedy = "update the driver to one for this CUDA version or a later one, or install a torch for an older one"
    return Finding(
        f"GPUs         torch {torch.__version__} {build} and cannot use the GPU of this machine", sound=False,
        remedy=f"{remedy}; to run on the CPU set resources.gpus: 0",
    )  # fmt: skip


def shared_memory(folder: Path) -> Iterator[Finding]:
    """Yield a finding if the file system in memory, in which Ray keeps its objects, is small, as in containers."""
    if not folder.is_dir():
        return
    size = shutil.disk_usage(folder).total
    if size < LOW_SHARED_MEMORY:
        yield Finding(
            f"memory       {folder} has {size / 2**20:.0f} MiB; Ray uses slower files on the disk instead",
            remedy="start the container with --shm-size=2g",
        )


def _folder(name: str, folder: Path) -> Finding:
    """Return whether the storage or the cache is writable, and has space."""
    store = Store(folder)
    problem = store.writing_problem()
    if problem is not None:
        return Finding(f"{name:12} {problem}", sound=False, remedy=f"name another place with --{name}")
    if store.origin is not None:
        return Finding(f"{name:12} {store.place} is writable")
    free = shutil.disk_usage(store.root).free
    remedy = f"free some, or name another place with --{name}" if free < LOW_DISK else ""
    return Finding(f"{name:12} {store.root} is writable, {free / 2**30:.0f} GiB free", remedy=remedy)
