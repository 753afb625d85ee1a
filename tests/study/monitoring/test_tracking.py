"""Stages as runs in TensorBoard event files and MLflow, and trackers that are slow or unreachable."""

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.protocol import StageOutcome
from study.config.schema import Checkpoint
from study.errors import ConfigError
from study.monitoring import trackers
from study.monitoring.trackers import BackgroundWriter, MLflow, Run, TensorBoard
from study.monitoring.tracking import flatten_settings, open_tracking
from study.planning.checks import spec_checks
from study.planning.graph import Plan
from study.store.paths import TENSORBOARD
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.tiny import planned, tiny

# MLflow's queries use a loader that SQLAlchemy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
RUN = Run(key="abc", name="segment unet / x fold 0", params={"optimizer.lr": 0.1, "deep": True}, tags={"fold": "0"})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tracked(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, str, str]:
    """Plan, store, MLflow URI and finished stage of a study that left another stage unfinished after one epoch."""
    folder = tmp_path_factory.mktemp("tracked")
    store, uri = Store(folder / "runs"), f"sqlite:///{folder / 'mlflow.db'}"
    changes = {"tracking": {"tensorboard": True, "mlflow": uri}, "pathways": {"none": ["segment"]},
               "stages.segment.steps": 6}  # fmt: skip
    plan = planned(tiny(changes), cache)
    runtime = RuntimeContext(storage=store.root, cache=cache, cpus=1, checkpoint=Checkpoint())
    finished, unfinished = plan.nodes
    with pytest.MonkeyPatch.context() as patch, open_tracking(plan, store, print) as listener:
        patch.setattr(trackers, "CLOSE_TIMEOUT_SECONDS", 120.0)  # a busy machine writes slowly
        for name in (finished, unfinished):
            listener.started(name)
        context = WorkerContext(report=lambda scores: listener.progressed(finished, scores))
        run_stage(stage_job(plan, plan.nodes[finished]), runtime, context)
        listener.ended(finished, StageOutcome(status="done"), again=False)
        listener.progressed(unfinished, {"epoch": 1, "epochs": 2, "train/loss": 0.5})
    return plan, store, uri, finished


def events(folder: Path) -> Iterator[Any]:
    """Yield the events of a run, stored as records of length, checksum, content and checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        data, offset = file.read_bytes(), 0
        while offset < len(data):
            (length,) = struct.unpack_from("<Q", data, offset)
            yield Event.FromString(data[offset + 12 : offset + 12 + length])
            offset += 16 + length


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    values: dict[str, dict[int, float]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                values.setdefault(value.tag, {})[event.step] = value.simple_value
    return values


def history(store: Store, digest: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(store.stage(digest) / "history.parquet").to_pylist()
    return rows


def test_event_file_contains_every_epoch_and_the_final_scores(tracked: tuple[Plan, Store, str, str]) -> None:
    _, store, _, finished = tracked
    (folder,) = (store.study("tiny") / TENSORBOARD).glob(f"*{finished[:8]}")
    values, rows = scalars(folder), history(store, finished)
    for name in ("train/loss", "val/mean_iou", "lr"):
        assert values[name] == pytest.approx({row["epoch"]: row[name] for row in rows}, rel=1e-6), name
    assert 0 <= values["test/mean_iou"][len(rows)] <= values["test/dice"][len(rows)] <= 1


def test_run_of_a_stage_is_named_after_its_arm_fold_and_seed(tracked: tuple[Plan, Store, str, str]) -> None:
    _, store, _, finished = tracked
    folders = [path.name for path in (store.study("tiny") / TENSORBOARD).iterdir()]
    fold = tracked[0].nodes[finished].selection.fold
    assert f"segment-unet-tu-lcnet_050-random-none-labelled-1-fold-{fold}-seed-0-{finished[:8]}" in folders
    assert len(folders) == 2


def test_mlflow_contains_settings_epochs_and_run_status(tracked: tuple[Plan, Store, str, str]) -> None:
    from mlflow import MlflowClient

    _, store, uri, finished = tracked
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.data.tags["digest"]: run for run in client.search_runs([experiment.experiment_id])}
    run = runs.pop(finished)
    assert (run.info.status, run.data.tags["pathway"], run.data.tags["stage"]) == ("FINISHED", "none", "segment")
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.params["image.size"] == "32"
    losses = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}
    assert losses == pytest.approx({row["epoch"]: row["train/loss"] for row in history(store, finished)})
    assert "test/dice" in run.data.metrics
    (unfinished,) = runs.values()
    assert unfinished.info.status == "KILLED"


def test_resumed_stage_continues_its_mlflow_run(tracked: tuple[Plan, Store, str, str]) -> None:
    from mlflow import MlflowClient

    uri = tracked[2]
    for epoch in (1, 2):
        writer = MLflow(uri, "study")
        writer.begin(RUN)
        writer.log("abc", epoch, {"train/loss": 1 / epoch})
        writer.end("abc", "KILLED" if epoch == 1 else "FINISHED")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]


def test_event_file_contains_settings_as_hyperparameters(tmp_path: Path) -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    writer = TensorBoard(tmp_path)
    writer.begin(RUN)
    writer.end("abc", "FINISHED")
    (folder,) = tmp_path.iterdir()
    contents = [value.metadata.plugin_data for event in events(folder) for value in event.summary.value]
    hparams = [HParamsPluginData.FromString(data.content) for data in contents if data.plugin_name == "hparams"]
    started = next(data.session_start_info for data in hparams if data.session_start_info.hparams)
    assert started.hparams["optimizer.lr"].number_value == 0.1


class Unresponsive:
    """A tracker that returns from a call only once `released` is set."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.calls: list[str] = []

    def begin(self, run: Run) -> None:
        assert self.released.wait(60)
        self.calls.append(f"begin {run.key}")

    def log(self, key: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(f"log {key} {epoch}")

    def end(self, key: str, status: str) -> None:
        self.calls.append(f"end {key} {status}")


def test_stages_do_not_wait_for_an_unresponsive_tracker() -> None:
    tracker = Unresponsive()
    writer = BackgroundWriter(tracker, pytest.fail)
    writer.begin(RUN)
    writer.log("abc", 1, {"train/loss": 0.5})
    writer.end("abc", "FINISHED")
    assert tracker.calls == []
    tracker.released.set()
    writer.close()
    assert tracker.calls == ["begin abc", "log abc 1", "end abc FINISHED"]


def test_unreachable_server_is_reported_in_one_line() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    messages: list[str] = []
    writer = BackgroundWriter(MLflow(f"http://127.0.0.1:{port}", "study"), messages.append)
    for key in ("abc", "def"):
        writer.begin(Run(key=key, name=key, params={}, tags={}))
        writer.log(key, 1, {"train/loss": 0.5})
        writer.end(key, "FINISHED")
    writer.close()
    assert len(messages) == 1
    assert messages[0].startswith(
        "warning: tracking by MLflow fails; the study continues without it: MlflowException: "
    )
    assert "\n" not in messages[0]


def test_tracking_does_not_change_stage_digests(cache: Path) -> None:
    tracked_plan = planned(tiny({"tracking": {"tensorboard": True, "mlflow": "http://localhost:5000"}}), cache)
    assert tracked_plan.nodes.keys() == planned(tiny(), cache).nodes.keys()


@pytest.mark.parametrize(
    "uri",
    ["https://anna:hunter2@mlflow.example.org", "https://hunter2@example.org", "postgresql://db/x?password=hunter2"],
)
def test_uri_with_a_secret_is_rejected_and_not_shown(uri: str, cache: Path) -> None:
    with pytest.raises(ConfigError) as error:
        planned(tiny({"tracking": {"mlflow": uri}}), cache)
    (line,) = str(error.value).splitlines()
    assert line.startswith("tiny.yaml: tracking.mlflow: has a user or a password in it")
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert "hunter2" not in line


def test_missing_package_is_rejected_with_the_name_of_its_extra(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_checks, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tracking\.mlflow: .*segmentation-study\[mlflow\]"):
        planned(tiny({"tracking": {"mlflow": "http://localhost:5000"}}), cache)


def test_nested_settings_are_flattened_to_dotted_names() -> None:
    settings = {"a": {"b": 1, "c": None}, "d": [1, 2], "e": True}
    assert flatten_settings(settings, "x.") == {"x.a.b": 1, "x.d": "[1, 2]", "x.e": True}
