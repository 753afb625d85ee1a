"""Runs of stages for others to follow: TensorBoard's event files, and MLflow.

Tune's own loggers name runs after its trials, keep them in its scratch folder, begin a new run whenever a stage is
taken up again, and end everything where a server does not answer. These do none of that.
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

MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Nothing is told to others, and a server that is down is known to be soon."""
PATIENCE = 10.0
"""Seconds that the end of a study waits for what was not written yet."""
STEP = "epoch"
Value = str | int | float | bool
Ending = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A stage as others see it. `key` tells runs apart, also those of an earlier driver."""

    key: str
    name: str
    params: Mapping[str, Value]
    tags: Mapping[str, str]


class Writer(Protocol):
    """Keeps runs somewhere; any call may raise."""

    def begin(self, run: Run) -> None:
        """Open a run, or go on with it."""

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""

    def end(self, key: str, ending: Ending) -> None:
        """Close a run."""


@dataclass
class TensorBoard:
    """Event files, in a folder for each run."""

    folder: Path
    _open: dict[str, "SummaryWriter"] = field(default_factory=dict)

    def begin(self, run: Run) -> None:
        """Write the settings; TensorBoard joins the files of one folder."""
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        writer = SummaryWriter(str(self.folder / re.sub(r"[^\w.+=-]+", "-", run.name)))
        for summary in hparams(dict(run.params), {})[:2]:  # the third says that the run is over
            writer.file_writer.add_summary(summary)
        writer.add_text("tags", "\n".join(f"- {name}: {value}" for name, value in run.tags.items()))
        self._open[run.key] = writer

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in metrics.items():
            self._open[key].add_scalar(name, value, epoch)
        self._open[key].flush()

    def end(self, key: str, ending: Ending) -> None:
        """Close the file."""
        self._open.pop(key).close()


@dataclass
class MLflow:
    """Runs of one experiment of an MLflow store or server; a run is found again by its key."""

    uri: str
    experiment: str
    _client: "MlflowClient | None" = None
    _place: str = ""
    _runs: dict[str, str] = field(default_factory=dict)

    def begin(self, run: Run) -> None:
        """Create the run, or open the one that an earlier driver left."""
        client = self._connected()
        found = client.search_runs([self._place], f"tags.digest = '{run.key}'", max_results=1)
        if found:
            self._runs[run.key] = found[0].info.run_id
            client.update_run(self._runs[run.key], status="RUNNING", name=run.name)
            return
        made = client.create_run(self._place, run_name=run.name, tags={**run.tags, "digest": run.key})
        self._runs[run.key] = made.info.run_id
        from mlflow.entities import Param

        client.log_batch(made.info.run_id, params=[Param(_named(k), str(v)) for k, v in run.params.items()])

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add metrics, with the epoch as their step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(_named(name), value, now, epoch) for name, value in metrics.items()]
        self._connected().log_batch(self._runs[key], metrics=values)

    def end(self, key: str, ending: Ending) -> None:
        """Say how the run ended."""
        self._connected().set_terminated(self._runs.pop(key), ending)

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            os.environ.update({name: value for name, value in MLFLOW.items() if name not in os.environ})
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self.uri)
            known = client.get_experiment_by_name(self.experiment)
            self._place = known.experiment_id if known else client.create_experiment(self.experiment)
            self._client = client
        return self._client


class Background:
    """Calls a writer from a thread of its own, so that what is slow or broken there holds up no stage.

    `say` gets one line with the first error; the run it belongs to is given up, later ones are tried.
    """

    def __init__(self, writer: Writer, say: Callable[[str], None]) -> None:
        self._writer, self._say, self._warned = writer, say, False
        self._calls: SimpleQueue[tuple[str, Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="tracking")
        self._thread.start()

    def begin(self, run: Run) -> None:
        """Open a run."""
        self._calls.put((run.key, lambda: self._writer.begin(run)))

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the numbers of an epoch."""
        self._calls.put((key, lambda: self._writer.log(key, epoch, metrics)))

    def end(self, key: str, ending: Ending) -> None:
        """Close a run."""
        self._calls.put((key, lambda: self._writer.end(key, ending)))

    def close(self) -> None:
        """Wait until all is written, for a while."""
        self._calls.put(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._warn("it does not answer")

    def _work(self) -> None:
        lost: set[str] = set()
        for key, call in iter(self._calls.get, None):
            if key in lost:
                continue
            try:
                call()
            except Exception as error:  # noqa: BLE001 - whatever a server does, the study goes on
                lost.add(key)
                self._warn(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            self._say(f"warning: tracking by {type(self._writer).__name__} fails; the study goes on without it: {why}")


def _named(name: str) -> str:
    """Return a name as MLflow allows it."""
    return re.sub(r"[^\w.\-/ ]", "_", name)
