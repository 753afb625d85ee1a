"""Writers of experiment trackers: TensorBoard event files and MLflow runs.

The loggers of Ray Tune are not used: they name runs after trials, write into Tune's scratch folder, start a new run
whenever a stage is resumed, and fail the study if a server does not answer.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from tensorboardX import SummaryWriter

MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Disables telemetry, and detects an unreachable server within seconds."""
CLOSE_TIMEOUT_SECONDS = 10.0
"""Maximum time that the end of a study waits for pending writes."""
Value = str | int | float | bool
RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stage as a run of a tracker. `key` identifies it, also across restarts of the driver."""

    key: str
    name: str
    params: Mapping[str, Value]
    tags: Mapping[str, str]


class Writer(Protocol):
    """Writes runs to a tracker; every method may raise."""

    def begin(self, run: Run) -> None:
        """Open a run, or resume it."""

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch."""

    def end(self, key: str, status: RunStatus) -> None:
        """Close a run."""


@dataclass
class TensorBoard:
    """Event files, in a folder for each run."""

    folder: Path
    _open: dict[str, "SummaryWriter"] = field(default_factory=dict)

    def begin(self, run: Run) -> None:
        """Write the settings; TensorBoard merges all files of a folder."""
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        writer = SummaryWriter(str(self.folder / re.sub(r"[^\w.+=-]+", "-", run.name)))
        for summary in hparams(dict(run.params), {})[:2]:  # the third marks the run as ended
            writer.file_writer.add_summary(summary)
        writer.add_text("tags", "\n".join(f"- {name}: {value}" for name, value in run.tags.items()))
        self._open[run.key] = writer

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in metrics.items():
            self._open[key].add_scalar(name, value, epoch)
        self._open[key].flush()

    def end(self, key: str, status: RunStatus) -> None:
        """Close the file."""
        self._open.pop(key).close()


@dataclass
class MLflow:
    """Runs of one experiment of an MLflow store or server, identified by a tag with their key."""

    uri: str
    experiment: str
    _client: "MlflowClient | None" = None
    _experiment_id: str = ""
    _runs: dict[str, str] = field(default_factory=dict)

    def begin(self, run: Run) -> None:
        """Create the run, or reopen the one of an earlier driver."""
        client = self._connect()
        existing = client.search_runs([self._experiment_id], f"tags.digest = '{run.key}'", max_results=1)
        if existing:
            self._runs[run.key] = existing[0].info.run_id
            client.update_run(self._runs[run.key], status="RUNNING", name=run.name)
            return
        created = client.create_run(self._experiment_id, run_name=run.name, tags={**run.tags, "digest": run.key})
        self._runs[run.key] = created.info.run_id
        from mlflow.entities import Param

        client.log_batch(created.info.run_id, params=[Param(_valid_name(k), str(v)) for k, v in run.params.items()])

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add metrics, with the epoch as their step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_valid_name(name), value, now, epoch) for name, value in metrics.items()]
        self._connect().log_batch(self._runs[key], metrics=values)

    def end(self, key: str, status: RunStatus) -> None:
        """Set the final status of the run."""
        self._connect().set_terminated(self._runs.pop(key), status)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            os.environ.update({name: value for name, value in MLFLOW_ENVIRONMENT.items() if name not in os.environ})
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            experiment = client.get_experiment_by_name(self.experiment)
            self._experiment_id = experiment.experiment_id if experiment else client.create_experiment(self.experiment)
            self._client = client
        return self._client


class BackgroundWriter:
    """Calls a writer in a separate thread, so that a slow or failing tracker does not delay stages.

    After an error the rest of that run is skipped; later runs are tried.

    Args:
        writer: The writer to call.
        print_line: Prints a warning; called for the first error only.
    """

    def __init__(self, writer: Writer, print_line: Callable[[str], None]) -> None:
        self._writer, self._print_line, self._warned = writer, print_line, False
        self._calls: SimpleQueue[tuple[str, Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._thread.start()

    def begin(self, run: Run) -> None:
        """Open a run."""
        self._calls.put((run.key, lambda: self._writer.begin(run)))

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch."""
        self._calls.put((key, lambda: self._writer.log(key, epoch, metrics)))

    def end(self, key: str, status: RunStatus) -> None:
        """Close a run."""
        self._calls.put((key, lambda: self._writer.end(key, status)))

    def close(self) -> None:
        """Wait until everything is written, up to `CLOSE_TIMEOUT_SECONDS`."""
        self._calls.put(None)
        self._thread.join(CLOSE_TIMEOUT_SECONDS)
        if self._thread.is_alive():
            self._warn("it does not answer")

    def _work(self) -> None:
        failed: set[str] = set()
        for key, call in iter(self._calls.get, None):
            if key in failed:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001 - a failing tracker must not end the study
                failed.add(key)
                self._warn(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            failure = f"tracking by {type(self._writer).__name__} fails"
            self._print_line(f"warning: {failure}; the study continues without it: {reason}")


def _valid_name(name: str) -> str:
    """Return a name without characters that MLflow refuses."""
    return re.sub(r"[^\w.\-/ ]", "_", name)
