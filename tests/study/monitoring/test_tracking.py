"""Stages as runs: a real event file read back, a real MLflow store, and a server that is not there."""

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
def ran(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, str, str]:
    """A study that trained a target stage and left another after an epoch; with the address of its runs."""
    folder = tmp_path_factory.mktemp("tracked")
    store, uri = Store(folder / "runs"), f"sqlite:///{folder / 'mlflow.db'}"
    changes = {"tracking": {"tensorboard": True, "mlflow": uri}, "pathways": {"none": ["segment"]},
               "stages.segment.steps": 6}  # fmt: skip
    plan = planned(tiny(changes), cache)
    place = RuntimeContext(storage=store.root, cache=cache, cpus=1, checkpoint=Checkpoint())
    done, cut = plan.nodes
    with open_tracking(plan, store, print) as listener:
        for name in (done, cut):
            listener.started(name)
        context = WorkerContext(report=lambda scores: listener.progressed(done, scores))
        run_stage(stage_job(plan, plan.nodes[done]), place, context)
        listener.ended(done, StageOutcome(status="done"), again=False)
        listener.progressed(cut, {"epoch": 1, "epochs": 2, "train/loss": 0.5})
    return plan, store, uri, done


def events(folder: Path) -> Iterator[Any]:
    """Yield the events of all files of a run: records of a length, its checksum, content, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def history(store: Store, digest: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(store.stage(digest) / "history.parquet").to_pylist()
    return rows


def test_event_file_has_every_epoch_and_the_final_scores(ran: tuple[Plan, Store, str, str]) -> None:
    _, store, _, done = ran
    (folder,) = (store.study("tiny") / TENSORBOARD).glob(f"*{done[:8]}")
    found, rows = scalars(folder), history(store, done)
    for name in ("train/loss", "val/mean_iou", "lr"):
        assert found[name] == pytest.approx({row["epoch"]: row[name] for row in rows}, rel=1e-6), name
    assert 0 <= found["test/mean_iou"][len(rows)] <= found["test/dice"][len(rows)] <= 1


def test_run_of_a_stage_is_named_after_its_arm_fold_and_seed(ran: tuple[Plan, Store, str, str]) -> None:
    _, store, _, done = ran
    folders = [path.name for path in (store.study("tiny") / TENSORBOARD).iterdir()]
    fold = ran[0].nodes[done].selection.fold
    assert f"segment-unet-tu-lcnet_050-random-none-labelled-1-fold-{fold}-seed-0-{done[:8]}" in folders
    assert len(folders) == 2


def test_mlflow_has_settings_epochs_and_how_runs_ended(ran: tuple[Plan, Store, str, str]) -> None:
    from mlflow import MlflowClient

    _, store, uri, done = ran
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.data.tags["digest"]: run for run in client.search_runs([experiment.experiment_id])}
    run = runs.pop(done)
    assert (run.info.status, run.data.tags["pathway"], run.data.tags["stage"]) == ("FINISHED", "none", "segment")
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.params["image.size"] == "32"
    losses = {one.step: one.value for one in client.get_metric_history(run.info.run_id, "train/loss")}
    assert losses == pytest.approx({row["epoch"]: row["train/loss"] for row in history(store, done)})
    assert "test/dice" in run.data.metrics
    (cut,) = runs.values()
    assert cut.info.status == "KILLED"


def test_stage_that_is_taken_up_again_goes_on_in_its_run(ran: tuple[Plan, Store, str, str]) -> None:
    from mlflow import MlflowClient

    uri = ran[2]
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
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2]


def test_settings_are_hyperparameters_of_the_event_file(tmp_path: Path) -> None:
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    writer = TensorBoard(tmp_path)
    writer.begin(RUN)
    writer.end("abc", "FINISHED")
    (folder,) = tmp_path.iterdir()
    contents = [value.metadata.plugin_data for event in events(folder) for value in event.summary.value]
    found = [HParamsPluginData.FromString(one.content) for one in contents if one.plugin_name == "hparams"]
    started = next(one.session_start_info for one in found if one.session_start_info.hparams)
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


def test_stages_do_not_wait_for_a_tracker_that_does_not_respond() -> None:
    tracker = Unresponsive()
    writer = BackgroundWriter(tracker, pytest.fail)
    writer.begin(RUN)
    writer.log("abc", 1, {"train/loss": 0.5})
    writer.end("abc", "FINISHED")
    assert tracker.calls == []
    tracker.released.set()
    writer.close()
    assert tracker.calls == ["begin abc", "log abc 1", "end abc FINISHED"]


def test_server_that_is_down_costs_one_line() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said: list[str] = []
    writer = BackgroundWriter(MLflow(f"http://127.0.0.1:{port}", "study"), said.append)
    for key in ("abc", "def"):
        writer.begin(Run(key=key, name=key, params={}, tags={}))
        writer.log(key, 1, {"train/loss": 0.5})
        writer.end(key, "FINISHED")
    writer.close()
    assert len(said) == 1
    assert said[0].startswith("warning: tracking by MLflow fails; the study continues without it: MlflowException: ")
    assert "\n" not in said[0]


def test_tracking_is_no_part_of_what_a_stage_is(cache: Path) -> None:
    tracked_plan = planned(tiny({"tracking": {"tensorboard": True, "mlflow": "http://localhost:5000"}}), cache)
    assert tracked_plan.nodes.keys() == planned(tiny(), cache).nodes.keys()


@pytest.mark.parametrize(
    "uri",
    ["https://anna:hunter2@mlflow.example.org", "https://hunter2@example.org", "postgresql://db/x?password=hunter2"],
)
def test_address_with_a_secret_is_refused_without_repeating_it(uri: str, cache: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(tiny({"tracking": {"mlflow": uri}}), cache)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("tiny.yaml: tracking.mlflow: has a user or a password in it")
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert "hunter2" not in line


def test_missing_package_is_refused_with_the_extra_that_brings_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_checks, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tracking\.mlflow: .*segmentation-study\[mlflow\]"):
        planned(tiny({"tracking": {"mlflow": "http://localhost:5000"}}), cache)


def test_nested_settings_are_told_by_dotted_names() -> None:
    settings = {"a": {"b": 1, "c": None}, "d": [1, 2], "e": True}
    assert flatten_settings(settings, "x.") == {"x.a.b": 1, "x.d": "[1, 2]", "x.e": True}
