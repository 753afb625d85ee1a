"""Forecasts of time and disk space in a plan, from stage records written by the tests."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.monitoring import forecast as forecasts
from study.monitoring.forecast import CHECKPOINT_COPIES, forecast_lines
from study.monitoring.plan_summary import summary
from study.monitoring.stage_records import MAX_OTHER_STAGES
from study.planning.graph import Plan, image_epochs
from study.store.store import RECORD, Store
from tests.study.planning.test_teacher_runs import document
from tests.support.documents import base, by_stage, planned
from tests.support.records import publish_record
from tests.support.tiny import planned as tiny_planned

GIB = 2**30
WEIGHTS_BYTES = 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two CPU cores and four GPUs."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")


def make_plan(tmp_path: Path, changes: dict[str, object] | None = None) -> Plan:
    return planned(base({"pathways": {"none": ["segment"]}, "compare.folds": 4, **(changes or {})}), tmp_path / "cache")


def read_forecast(plan: Plan, store: Store, tmp_path: Path) -> dict[str, Any]:
    forecast: dict[str, Any] = summary(plan, store, tmp_path / "cache")["forecast"]
    return forecast


def finish_stage(plan: Plan, store: Store, seconds: float = 1.0, **record: object) -> str:
    """Publish a target stage that took `seconds` per image and epoch, and return its digest."""
    digest = sorted(by_stage(plan)["segment"])[0]
    images = image_epochs(plan, plan.nodes[digest])
    batch = plan.nodes[digest].step.settings.batch_size
    publish_record(store, plan, digest, seconds=seconds * images, updates=-(-images // batch), **record)
    return digest


def remaining_image_epochs(plan: Plan, finished: str) -> int:
    return sum(image_epochs(plan, node) for digest, node in plan.nodes.items() if digest != finished)


def test_time_and_disk_are_unknown_for_an_empty_storage(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    forecast = read_forecast(plan, store, tmp_path)
    assert (forecast["stages"], forecast["unknown"]) == (8, 8)
    assert forecast["seconds"] is forecast["cpu_hours"] is forecast["gpu_hours"] is forecast["storage"] is None
    assert "time and disk are unknown" in forecast_lines(forecast)[-1]


def test_time_is_that_of_equal_image_epochs_divided_by_slots(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    digest = finish_stage(plan, store, seconds=0.5)
    forecast = read_forecast(plan, store, tmp_path)
    images = remaining_image_epochs(plan, digest)
    assert (forecast["unknown"], forecast["slots"], forecast["gpu_hours"]) == (0, 2, None)
    assert forecast["cpu_hours"] == pytest.approx(0.5 * images / 3600)
    assert forecast["seconds"] == pytest.approx(0.5 * images / 2)


def test_cpu_hours_do_not_depend_on_the_cpus_of_the_plan(store: Store, tmp_path: Path) -> None:
    finish_stage(make_plan(tmp_path), store, seconds=0.5, cpus=2)
    one_cpu, two_cpus = (
        read_forecast(make_plan(tmp_path, {"resources.cpus": cpus}), store, tmp_path) for cpus in (1, 2)
    )
    assert one_cpu["cpu_hours"] == pytest.approx(two_cpus["cpu_hours"])
    assert (one_cpu["slots"], two_cpus["slots"]) == (2, 1)


def test_hours_are_gpu_hours_if_the_record_is_of_a_gpu(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, {"resources.gpus": 1})
    digest = finish_stage(plan, store, seconds=0.5, device="cuda")
    forecast = read_forecast(plan, store, tmp_path)
    assert (forecast["slots"], forecast["cpu_hours"]) == (2, None)
    assert forecast["gpu_hours"] == pytest.approx(0.5 * remaining_image_epochs(plan, digest) / 3600)


def test_packed_stages_use_their_share_of_gpu_hours(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    memory = {"peak": 30 * GIB, "total": 80 * GIB}
    finish_stage(make_plan(tmp_path), store, device="cuda", gpu_memory=memory)
    unpacked, packed = (
        read_forecast(make_plan(tmp_path, {"resources.pack": pack}), store, tmp_path) for pack in (False, True)
    )
    assert (unpacked["slots"], packed["slots"]) == (4, 8)
    assert packed["gpu_hours"] == pytest.approx(0.45 * unpacked["gpu_hours"])


def test_gpu_records_are_not_used_for_a_study_on_cpus(store: Store, tmp_path: Path) -> None:
    finish_stage(make_plan(tmp_path), store, device="cuda")
    assert read_forecast(make_plan(tmp_path, {"resources.gpus": 0}), store, tmp_path)["seconds"] is None


def test_time_equals_that_of_the_longest_chain(store: Store, tmp_path: Path) -> None:
    changes = {"pathways": {"none": ["segment"], "boxes": ["boxes", "segment"]}, "stages.boxes.epochs": 1000}
    plan = make_plan(tmp_path, changes)
    finish_stage(plan, store)
    (boxes,) = by_stage(plan)["boxes"]
    longest_child = max(image_epochs(plan, node) for node in plan.nodes.values() if node.parent == boxes)
    expected = image_epochs(plan, plan.nodes[boxes]) + longest_child
    assert read_forecast(plan, store, tmp_path)["seconds"] == pytest.approx(expected)


def test_records_of_another_study_are_used(store: Store, tmp_path: Path) -> None:
    finish_stage(make_plan(tmp_path), store)
    other_plan = make_plan(tmp_path, {"name": "other", "stages.segment.optimizer": {"lr": 0.5}})
    assert read_forecast(other_plan, store, tmp_path)["unknown"] == 0


def test_records_of_another_backbone_are_not_used(store: Store, tmp_path: Path) -> None:
    finish_stage(make_plan(tmp_path), store)
    plan = make_plan(tmp_path, {"compare.backbone": ["resnet18", "resnet34"]})
    forecast = read_forecast(plan, store, tmp_path)
    assert (forecast["stages"], forecast["unknown"]) == (15, 8)
    assert "without 8 of the 15 stages" in forecast_lines(forecast)[-1]


def test_number_of_records_read_is_bounded(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MAX_OTHER_STAGES + 20):
        (store.stage(f"{number:032x}")).mkdir(parents=True)
    read: list[str] = []
    monkeypatch.setattr("study.monitoring.stage_records.read_record", lambda _, digest: read.append(digest) or {})
    read_forecast(make_plan(tmp_path), store, tmp_path)
    assert len(read) == MAX_OTHER_STAGES


@pytest.mark.parametrize(("keep", "weights"), [("all", 7), ("none", 0), ("parents+best", 4)])
def test_kept_disk_space_follows_the_keep_setting(store: Store, tmp_path: Path, keep: str, weights: int) -> None:
    plan = make_plan(tmp_path, {"keep.weights": keep})
    digest = finish_stage(plan, store)
    other_bytes = sum(file["bytes"] for file in store.manifest(digest)["files"].values()) - WEIGHTS_BYTES
    storage = read_forecast(plan, store, tmp_path)["storage"]
    assert storage["kept"] == 7 * other_bytes + weights * WEIGHTS_BYTES
    assert storage["most"] == 7 * (other_bytes + WEIGHTS_BYTES) + 2 * CHECKPOINT_COPIES * WEIGHTS_BYTES


def test_size_of_dropped_weights_is_computed_from_their_parameters(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path, {"keep.weights": "all"})
    digest = finish_stage(plan, store, parameters=2000)
    before = read_forecast(plan, store, tmp_path)["storage"]["kept"]
    store.drop_weights([digest])
    assert read_forecast(plan, store, tmp_path)["storage"]["kept"] - before == 7 * (4 * 2000 - WEIGHTS_BYTES)


def test_cache_forecast_equals_what_training_writes(store: Store, tmp_path: Path) -> None:
    from datasets.loading.prepare import prepared
    from datasets.loading.truth import truth

    plan = make_plan(tmp_path)
    view, cache = plan.views["hospital"], tmp_path / "cache"
    assert read_forecast(plan, store, tmp_path)["cache"]["there"] == 0
    prepared(view.source, view.index, "mask", plan.spec.image, structure=None, cache=cache)
    partial = read_forecast(plan, store, tmp_path)["cache"]
    assert 0 < partial["there"] == sum(file.stat().st_size - 128 for file in (cache / "prepared").rglob("*.npy"))
    truth(view.source, view.index, plan.spec.image.size, cache)
    complete = read_forecast(plan, store, tmp_path)["cache"]
    assert complete["there"] == complete["bytes"] == partial["bytes"]


def test_forecast_is_empty_if_all_stages_are_finished(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for digest in plan.nodes:
        publish_record(store, plan, digest)
    assert forecast_lines(read_forecast(plan, store, tmp_path)) == []


def test_gpus_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(forecasts, "GPUS", tmp_path)
    assert forecasts._machine(cuda=True).gpus == 2


def test_incomplete_record_is_not_used(store: Store, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    digest = finish_stage(plan, store)
    file = store.stage(digest) / RECORD
    record = {key: value for key, value in store.record(digest).items() if key not in {"workers", "device"}}
    file.write_text(yaml.safe_dump(record), encoding="utf-8")
    assert read_forecast(plan, store, tmp_path)["seconds"] is None


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_the_cache_includes_the_pseudo_labels_of_students(labels: str, store: Store, tmp_path: Path) -> None:
    alone = {"pathways": {"none": ["segment"]}, "compare.baseline": {}}
    plans = [tiny_planned(document(changes, labels=labels), tmp_path / "cache") for changes in (alone, {})]
    supervised, total = (read_forecast(plan, store, tmp_path)["cache"]["bytes"] for plan in plans)
    nodes = [node for node in plans[1].nodes.values() if node.teachers]
    view = plans[1].views["hospital"]
    images = sum(len(view.stage_rows(node.selection).unlabelled) for node in nodes)
    planes = len(view.index.classes) if labels == "soft" or view.index.overlapping else 1
    assert total - supervised == images * planes * math.prod(nodes[0].step.image.shape) > 0
