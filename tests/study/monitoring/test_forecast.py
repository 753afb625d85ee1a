"""What a plan says its stages will take, by records that the tests write."""

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
from tests.support.documents import base, by_stage, planned
from tests.support.records import publish_record

GIB = 2**30
WEIGHTS_BYTES = 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors and four GPUs."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")


def study(tmp_path: Path, changes: dict[str, object] | None = None) -> Plan:
    return planned(base({"pathways": {"none": ["segment"]}, "compare.folds": 4, **(changes or {})}), tmp_path / "cache")


def told(plan: Plan, store: Store, tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = summary(plan, store, tmp_path / "cache")["forecast"]
    return found


def finish_one(plan: Plan, store: Store, seconds: float = 1.0, **record: object) -> str:
    """Publish a target stage that took so many seconds for each of its images."""
    digest = sorted(by_stage(plan)["segment"])[0]
    images = image_epochs(plan, plan.nodes[digest])
    batch = plan.nodes[digest].step.settings.batch_size
    publish_record(store, plan, digest, seconds=seconds * images, updates=-(-images // batch), **record)
    return digest


def image_epochs_left(plan: Plan, done: str) -> int:
    return sum(image_epochs(plan, node) for digest, node in plan.nodes.items() if digest != done)


def test_in_an_empty_storage_time_and_disk_are_unknown(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path)
    found = told(plan, store, tmp_path)
    assert (found["stages"], found["unknown"]) == (8, 8)
    assert found["seconds"] is found["cpu_hours"] is found["gpu_hours"] is found["storage"] is None
    assert "time and disk are unknown" in forecast_lines(found)[-1]


def test_time_is_that_of_an_image_epoch_of_the_same_kind_on_all_slots(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path)
    done = finish_one(plan, store, seconds=0.5)
    found = told(plan, store, tmp_path)
    images = image_epochs_left(plan, done)
    assert (found["unknown"], found["slots"], found["gpu_hours"]) == (0, 2, None)
    assert found["cpu_hours"] == pytest.approx(0.5 * images / 3600)
    assert found["seconds"] == pytest.approx(0.5 * images / 2)


def test_processors_of_the_record_and_of_the_plan_may_differ(store: Store, tmp_path: Path) -> None:
    finish_one(study(tmp_path), store, seconds=0.5, cpus=2)
    once, twice = (told(study(tmp_path, {"resources.cpus": cpus}), store, tmp_path) for cpus in (1, 2))
    assert once["cpu_hours"] == pytest.approx(twice["cpu_hours"])
    assert (once["slots"], twice["slots"]) == (2, 1)


def test_where_stages_ran_on_a_gpu_hours_are_those_of_gpus(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path, {"resources.gpus": 1})
    done = finish_one(plan, store, seconds=0.5, device="cuda")
    found = told(plan, store, tmp_path)
    assert (found["slots"], found["cpu_hours"]) == (2, None)
    assert found["gpu_hours"] == pytest.approx(0.5 * image_epochs_left(plan, done) / 3600)


def test_packed_stages_take_their_share_of_gpu_hours(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    memory = {"peak": 30 * GIB, "total": 80 * GIB}
    finish_one(study(tmp_path), store, device="cuda", gpu_memory=memory)
    whole, packed = (told(study(tmp_path, {"resources.pack": pack}), store, tmp_path) for pack in (False, True))
    assert (whole["slots"], packed["slots"]) == (4, 8)
    assert packed["gpu_hours"] == pytest.approx(0.45 * whole["gpu_hours"])


def test_a_stage_on_gpus_tells_nothing_of_a_study_without(store: Store, tmp_path: Path) -> None:
    finish_one(study(tmp_path), store, device="cuda")
    assert told(study(tmp_path, {"resources.gpus": 0}), store, tmp_path)["seconds"] is None


def test_a_chain_takes_as_long_as_its_stages_one_after_the_other(store: Store, tmp_path: Path) -> None:
    changes = {"pathways": {"none": ["segment"], "boxes": ["boxes", "segment"]}, "stages.boxes.epochs": 1000}
    plan = study(tmp_path, changes)
    finish_one(plan, store)
    (boxes,) = by_stage(plan)["boxes"]
    after = max(image_epochs(plan, node) for node in plan.nodes.values() if node.parent == boxes)
    expected = image_epochs(plan, plan.nodes[boxes]) + after
    assert told(plan, store, tmp_path)["seconds"] == pytest.approx(expected)


def test_what_another_study_trained_tells_too(store: Store, tmp_path: Path) -> None:
    finish_one(study(tmp_path), store)
    other = study(tmp_path, {"name": "other", "stages.segment.optimizer": {"lr": 0.5}})
    assert told(other, store, tmp_path)["unknown"] == 0


def test_another_backbone_is_another_kind(store: Store, tmp_path: Path) -> None:
    finish_one(study(tmp_path), store)
    grown = study(tmp_path, {"compare.backbone": ["resnet18", "resnet34"]})
    found = told(grown, store, tmp_path)
    assert (found["stages"], found["unknown"]) == (15, 8)
    assert "without 8 of the 15 stages" in forecast_lines(found)[-1]


def test_how_many_records_are_read_is_bounded(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MAX_OTHER_STAGES + 20):
        (store.stage(f"{number:032x}")).mkdir(parents=True)
    read: list[str] = []
    monkeypatch.setattr("study.monitoring.stage_records.read_record", lambda _, digest: read.append(digest) or {})
    told(study(tmp_path), store, tmp_path)
    assert len(read) == MAX_OTHER_STAGES


@pytest.mark.parametrize(("keep", "weights"), [("all", 7), ("none", 0), ("parents+best", 4)])
def test_what_stays_of_the_disk_is_what_the_file_keeps(store: Store, tmp_path: Path, keep: str, weights: int) -> None:
    plan = study(tmp_path, {"keep.weights": keep})
    done = finish_one(plan, store)
    others = sum(file["bytes"] for file in store.manifest(done)["files"].values()) - WEIGHTS_BYTES
    storage = told(plan, store, tmp_path)["storage"]
    assert storage["kept"] == 7 * others + weights * WEIGHTS_BYTES
    assert storage["most"] == 7 * (others + WEIGHTS_BYTES) + 2 * CHECKPOINT_COPIES * WEIGHTS_BYTES


def test_weights_that_were_not_kept_are_told_by_their_parameters(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path, {"keep.weights": "all"})
    done = finish_one(plan, store, parameters=2000)
    before = told(plan, store, tmp_path)["storage"]["kept"]
    store.drop_weights([done])
    assert told(plan, store, tmp_path)["storage"]["kept"] - before == 7 * (4 * 2000 - WEIGHTS_BYTES)


def test_the_cache_is_what_training_fills_it_with(store: Store, tmp_path: Path) -> None:
    from datasets.loading.prepare import prepared
    from datasets.loading.truth import truth

    plan = study(tmp_path)
    view, cache = plan.views["hospital"], tmp_path / "cache"
    assert told(plan, store, tmp_path)["cache"]["there"] == 0
    prepared(view.source, view.index, "mask", plan.spec.image, structure=None, cache=cache)
    part = told(plan, store, tmp_path)["cache"]
    assert 0 < part["there"] == sum(file.stat().st_size - 128 for file in (cache / "prepared").rglob("*.npy"))
    truth(view.source, view.index, plan.spec.image.size, cache)
    whole = told(plan, store, tmp_path)["cache"]
    assert whole["there"] == whole["bytes"] == part["bytes"]


def test_nothing_is_forecast_where_nothing_is_left(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path)
    for digest in plan.nodes:
        publish_record(store, plan, digest)
    assert forecast_lines(told(plan, store, tmp_path)) == []


def test_gpus_of_this_machine_are_counted_without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(forecasts, "GPUS", tmp_path)
    assert forecasts._machine(cuda=True).gpus == 2


def test_a_record_that_lacks_what_is_asked_tells_nothing(store: Store, tmp_path: Path) -> None:
    plan = study(tmp_path)
    done = finish_one(plan, store)
    file = store.stage(done) / RECORD
    kept = {key: value for key, value in store.record(done).items() if key not in {"workers", "device"}}
    file.write_text(yaml.safe_dump(kept), encoding="utf-8")
    assert told(plan, store, tmp_path)["seconds"] is None
