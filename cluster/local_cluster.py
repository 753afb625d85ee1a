"""A local Ray cluster. Ray is imported only when the cluster starts, so that this module is cheap to import."""

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
from cluster.tokens import environment, fresh_token, protect_token_file

PRELOAD_CPUS = 8
"""Maximum number of CPU cores for preloading: Ray keeps one idle worker a core, and each takes memory."""
IDLE_MILLISECONDS = 10 * 60 * 1000
"""How long a worker may be idle before Ray ends it; the default of one second would end preloaded workers."""


class LocalCluster:
    """A local cluster that starts in `running`, or earlier in the background with `begin`.

    As a context manager it shuts down a cluster that was begun and not used. One thread starts and stops the cluster
    and stays alive in between, because Linux ends Ray's processes together with the thread that created them.

    Args:
        preload: A module that the workers import before their first task; ignored above `PRELOAD_CPUS` cores.
    """

    def __init__(self, *, preload: str | None = None) -> None:
        self._preload = preload
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
        self._resources = ExitStack()
        self._startup: Future[None] | None = None

    def begin(self) -> None:
        """Start the cluster in the background; the start takes seconds, most of them waiting."""
        if self._startup is None:
            self._startup = self._thread.submit(self._run_start)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start the cluster, or wait for `begin` to finish, and shut it down after the block."""
        with self:
            self.begin()
            assert self._startup is not None
            try:
                self._startup.result()
            except Exception as error:
                if type(error) is not Exception:  # Ray raises a bare Exception where its processes do not start
                    raise
                message = (
                    f"Ray does not start on this machine ({' '.join(str(error).split())}); allowed: a machine with "
                    "memory and address space to spare (`ulimit -v`); free some, or name a running cluster"
                )
                raise ConnectionError(message) from error
            yield

    def __enter__(self) -> Self:
        """Return the cluster without starting it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Shut the cluster down; waits for a start in progress."""
        self._thread.submit(self._resources.close).result()
        self._startup = None

    def _run_start(self) -> None:
        import ray

        scratch = self._resources.enter_context(scratch_folder())
        settings: dict[str, object] = {"enable_metrics_collection": False}
        if self._preload and (os.cpu_count() or 1) <= PRELOAD_CPUS:
            path = os.pathsep.join(filter(None, [_import_folder(self._preload), os.environ.get("PYTHONPATH")]))
            self._resources.enter_context(environment(PYTHONPATH=path))  # Ray passes its own path to workers too late
            settings |= _preload_settings(self._preload)
        protect_token_file()
        self._resources.enter_context(environment(**torch_on_loopback()))
        self._resources.enter_context(fresh_token())
        self._resources.callback(ray.shutdown)
        with ray_on_loopback():
            # address="local": without an address Ray may join a cluster whose head has died.
            ray.init(
                address="local", include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False,
                _temp_dir=str(scratch / SESSIONS), _system_config=settings,
            )  # fmt: skip
        with suppress(AttributeError):
            # A local cluster needs neither the autoscaler, which delays the shutdown by a second, nor the rest of the
            # dashboard, which serves metrics. Ray has no public option to start without them.
            node = ray._private.worker._global_node
            node.kill_monitor(check_alive=False)
            node.kill_dashboard(check_alive=False)


def _preload_settings(module: str) -> dict[str, object]:
    """Return Ray's settings to preload a module: https://github.com/ray-project/ray/pull/33572."""
    return {
        "preload_python_modules": [module],
        "idle_worker_killing_time_threshold_ms": IDLE_MILLISECONDS,
        "idle_worker_killing_memory_threshold_bytes": 0,  # under memory pressure idle workers are ended first
    }


def _import_folder(module: str) -> str:
    """Return the folder that a module is imported from, "" where it is on the path of every process."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return ""
    folder = str(Path(spec.origin).parents[1 if spec.submodule_search_locations else 0])
    return "" if folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")} else folder
