"""A Ray cluster of this machine alone. Brings Ray only where one starts: what may end without it imports this."""

import logging
import os
import sysconfig
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.scratch import scratch_folder

PRELOAD_CPUS = 8
"""Ray keeps a process ready for each processor; on more than these, memory for those that get no work adds up."""
WAIT_MILLISECONDS = 10 * 60 * 1000
"""That a process may wait for its first work while others have theirs; Ray's own limit is a second."""


class LocalCluster:
    """A cluster that starts when it is needed, or earlier with `begin`. As a block it ends what was begun in vain.

    A thread starts and ends it, and lives in between: Linux ends Ray's processes with the thread that made them.
    `preload`: a module that its processes import before their first work, except on a large machine.
    """

    def __init__(self, *, preload: str | None = None) -> None:
        self._preload = preload
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
        self._held = ExitStack()
        self._start: Future[None] | None = None

    def begin(self) -> None:
        """Start it while the caller goes on: most of the seconds this takes are waiting."""
        if self._start is None:
            self._start = self._thread.submit(self._started)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have it there while the block lasts."""
        with self:
            self.begin()
            assert self._start is not None
            self._start.result()
            yield

    def __enter__(self) -> Self:
        """Begin nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End what was begun and has not ended; one that still starts is waited for."""
        self._thread.submit(self._held.close).result()
        self._start = None

    def _started(self) -> None:
        import ray

        scratch = self._held.enter_context(scratch_folder())
        self._held.callback(ray.shutdown)
        settings = {}
        if self._preload and (os.cpu_count() or 1) <= PRELOAD_CPUS:
            self._held.enter_context(_found_by_children(self._preload))
            settings = _settings(self._preload)
        # By name: without one it may join a cluster whose head has died.
        ray.init(
            address="local", include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False,
            _temp_dir=str(scratch), _system_config=settings,
        )  # fmt: skip
        with suppress(AttributeError):
            # One machine needs no autoscaler, and at the end it would ask a server that is gone, for a second, until
            # it is killed. Ray has no public way; without this one the end takes that second more.
            ray._private.worker._global_node.kill_monitor(check_alive=False)


def _settings(preload: str) -> dict[str, object]:
    """Return what Ray should do otherwise: https://github.com/ray-project/ray/pull/33572 for imports ahead."""
    return {
        "preload_python_modules": [preload],
        "idle_worker_killing_time_threshold_ms": WAIT_MILLISECONDS,
        "idle_worker_killing_memory_threshold_bytes": 0,  # where memory is short, those that wait go first
    }


@contextmanager
def _found_by_children(module: str) -> Iterator[None]:
    """Have what starts in the block find a module where this process does; Ray itself tells it too late."""
    place, before = _place_of(module), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, before]))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


def _place_of(module: str) -> str:
    """Return the folder that a module is imported from, nothing where every process looks there."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return ""
    place = str(Path(spec.origin).parents[1 if spec.submodule_search_locations else 0])
    return "" if place in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")} else place
