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

from cluster.loopback import ray_on_loopback, torch_on_loopback
from cluster.scratch import SESSIONS, scratch_folder
from cluster.tokens import environment, own_token, protect_token_file

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
            try:
                self._start.result()
            except Exception as error:
                if type(error) is not Exception:  # all that Ray says where its processes do not come up
                    raise
                message = (
                    f"Ray does not start on this machine ({' '.join(str(error).split())}); allowed: a machine with "
                    "memory and address space to spare (`ulimit -v`); free some, or name a running cluster"
                )
                raise ConnectionError(message) from error
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
        settings: dict[str, object] = {"enable_metrics_collection": False}
        if self._preload and (os.cpu_count() or 1) <= PRELOAD_CPUS:
            path = os.pathsep.join(filter(None, [_place_of(self._preload), os.environ.get("PYTHONPATH")]))
            self._held.enter_context(environment(PYTHONPATH=path))  # Ray itself tells its processes too late
            settings |= _preload_settings(self._preload)
        protect_token_file()
        self._held.enter_context(environment(**torch_on_loopback()))
        self._held.enter_context(own_token())
        self._held.callback(ray.shutdown)
        with ray_on_loopback():
            # By name: without one it may join a cluster whose head has died.
            ray.init(
                address="local", include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False,
                _temp_dir=str(scratch / SESSIONS), _system_config=settings,
            )  # fmt: skip
        with suppress(AttributeError):
            # One machine needs neither an autoscaler, which would delay the end by a second, nor the process that is
            # left of a dashboard, which serves metrics. Ray has no public way to start without them.
            node = ray._private.worker._global_node
            node.kill_monitor(check_alive=False)
            node.kill_dashboard(check_alive=False)


def _preload_settings(module: str) -> dict[str, object]:
    """Return Ray's settings for imports ahead: https://github.com/ray-project/ray/pull/33572."""
    return {
        "preload_python_modules": [module],
        "idle_worker_killing_time_threshold_ms": WAIT_MILLISECONDS,
        "idle_worker_killing_memory_threshold_bytes": 0,  # where memory is short, those that wait go first
    }


def _place_of(module: str) -> str:
    """Return the folder that a module is imported from, nothing where every process looks there."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return ""
    place = str(Path(spec.origin).parents[1 if spec.submodule_search_locations else 0])
    return "" if place in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")} else place
