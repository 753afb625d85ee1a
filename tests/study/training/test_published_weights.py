"""Workers start from the planned content of published weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.catalog.hub_cache import cached_file
from models.catalog.registry import published_weights
from study.config.schema import Checkpoint
from study.planning.graph import Plan
from study.search.load import load_plan
from study.store.atomic import AlteredFileError
from study.store.pretrained import store_weights
from study.store.store import Store
from study.training.job import RuntimeContext, StageJob, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.hub import Hub, local_hub, sha256, timm_weights
from tests.support.tiny import tiny

WEIGHTS = published_weights("tu-lcnet_050", "imagenet")
STUDY = tiny({
    "compare.initial_weights": ["imagenet"], "compare.pathway": ["none"], "compare.baseline": [],
    "stages.segment.steps": 1,
})  # fmt: skip
DISTILLED = tiny({
    "stages.classify": {
        "task": "feature_distillation", "data": "clinic", "epochs": 1,
        "teacher": {"backbone": "tu-lcnet_050", "initial_weights": "imagenet"},
    },
})  # fmt: skip
FIRST, SECOND = (timm_weights("lcnet_050", scale) for scale in (1.0, 2.0))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine with the weights, and an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with local_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        running.commit(WEIGHTS.repository, FIRST)
        yield running


def planned(folder: Path, document: dict[str, Any] = STUDY) -> Plan:
    return load_plan(document, file="tiny.yaml", cache=folder / "cache", storage=folder / "runs")


def train(job: StageJob, folder: Path) -> None:
    runtime = RuntimeContext(
        storage=folder / "runs", cache=folder / "cache", cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0)
    )
    run_stage(job, runtime, WorkerContext(report=lambda _: None))


def test_a_worker_uses_the_planned_content_after_the_branch_has_moved(tmp_path: Path, hub: Hub) -> None:
    jobs = [stage_job(plan, node) for plan in [planned(tmp_path)] for node in plan.nodes.values()]
    hub.commit(WEIGHTS.repository, SECOND)
    train(jobs[0], tmp_path)
    record = yaml.safe_load((tmp_path / "runs" / "stages" / jobs[0].digest / "stage.yaml").read_text())
    assert record["initial_content"] == sha256(FIRST)
    assert not any(sha256(SECOND) in request for request in hub.requests)


def test_a_worker_refuses_an_altered_file(tmp_path: Path, hub: Hub) -> None:
    plan = planned(tmp_path)
    job, *_ = (stage_job(plan, node) for node in plan.nodes.values())
    content = plan.contents[WEIGHTS]
    store_weights(Store(tmp_path / "runs"), {WEIGHTS: content})
    (stored,) = (tmp_path / "runs" / "weights" / WEIGHTS.key).glob("*.safetensors")
    cached = cached_file(WEIGHTS, content)
    assert cached is not None
    for file in (stored, cached.resolve()):
        file.write_bytes(SECOND)
        with pytest.raises((AlteredFileError, ValueError), match=r"was altered.*; allowed: .*; remove it"):
            train(job, tmp_path)
        file.unlink()
    assert Store(tmp_path / "runs").finished() == frozenset()
    train(job, tmp_path)  # downloads it again
    assert Store(tmp_path / "runs").finished() == {job.digest}


def distillation(folder: Path) -> tuple[Plan, StageJob]:
    """A study whose only published weights are those of a teacher, and the job of its distillation."""
    plan = planned(folder, DISTILLED)
    (job,) = (stage_job(plan, node) for node in plan.nodes.values() if node.step.stage == "classify")
    return plan, job


def test_a_teacher_has_the_planned_content_after_the_branch_has_moved(tmp_path: Path, hub: Hub) -> None:
    _, job = distillation(tmp_path)
    hub.commit(WEIGHTS.repository, SECOND)
    train(job, tmp_path)
    record = yaml.safe_load((tmp_path / "runs" / "stages" / job.digest / "stage.yaml").read_text())
    assert (record["initial_content"], record["teacher_content"]) == (None, sha256(FIRST))
    assert not any(sha256(SECOND) in request for request in hub.requests)


def test_a_worker_refuses_an_altered_file_of_a_teacher(tmp_path: Path, hub: Hub) -> None:
    plan, job = distillation(tmp_path)
    store = Store(tmp_path / "runs")
    assert hub.requests
    store_weights(store, plan.contents)
    (stored,) = (tmp_path / "runs" / "weights" / WEIGHTS.key).glob("*.safetensors")
    assert stored.read_bytes() == FIRST
    stored.write_bytes(SECOND)
    with pytest.raises(AlteredFileError, match=r"was altered after it was written; allowed: .*; remove it"):
        train(job, tmp_path)
    assert store.finished() == frozenset()
    stored.write_bytes(FIRST)
    train(job, tmp_path)
    assert store.finished() == {job.digest}
