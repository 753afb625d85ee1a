"""Checks whether this machine can run studies: versions, CPU cores, GPUs, storage, cache, published weights."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.catalog import hub
from models.catalog.hub_cache import cache_folder
from study.monitoring.forecast import GPUS
from study.store.store import Store

LIBRARIES = ("torch", "ray", "segmentation-models-pytorch", "timm", "albumentations", "pyarrow")
LOW_DISK = 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """A line of the output; `sound` is False if studies cannot run."""

    line: str
    sound: bool = True


def default_cache() -> Path:
    """Return the user's folder of prepared images; only the user can read it, because images may be of patients."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = Path(base).expanduser() / "segmentation-study"
    with suppress(OSError):  # the first write reports it
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def findings(storage: Path, cache: Path) -> Iterator[Finding]:
    """Yield the result of each check."""
    yield Finding(f"python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in LIBRARIES:
        yield Finding(f"library      {name} {importlib.metadata.version(name)}")
    yield Finding(f"CPU cores    {os.cpu_count()}")
    yield _gpus()
    for name, folder in (("storage", storage), ("cache", cache)):
        store = Store(folder)
        problem = store.writing_problem()
        yield Finding(f"{name:12} {problem or _free(store)}", sound=problem is None)
    if hub.reachable():
        yield Finding("weights      the hub of published weights answers")
    else:
        yield Finding(
            f"weights      the hub cannot be reached: imagenet starts work from files in {cache_folder()} only; "
            "fetch them once where there is a network and set HF_HOME to that cache"
        )


def _gpus() -> Finding:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if not names and any(GPUS.glob("*")):
        build = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}"
        return Finding(
            f"GPUs         {build}, cannot use the GPU of this machine; install a driver and a torch that fit each "
            "other, or set resources.gpus: 0", sound=False
        )  # fmt: skip
    return Finding(f"GPUs         {', '.join(names) or 'none; studies run on the CPU'}")


def _free(store: Store) -> str:
    if store.origin is not None:
        return f"{store.place} is writable"
    free = shutil.disk_usage(store.root).free
    low = "; that is little: name another folder" if free < LOW_DISK else ""
    return f"{store.root} is writable, {free / 2**30:.0f} GiB free{low}"
