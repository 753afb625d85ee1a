"""Packing of stages on GPUs, from stage records written by the tests."""

from pathlib import Path

import pytest
import yaml

from cluster.connect import Capacity
from cluster.protocol import StageOutcome, StageResources
from cluster.scheduling.capacity import Slots
from study.execution.gpu_packing import Packing
from study.monitoring.gpu_memory import gpu_share
from study.planning.graph import Plan
from study.store.store import RECORD, Store
from tests.support.documents import base, by_stage, planned
from tests.support.records import publish_record

GIB = 2**30


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A plan with target stages of two image sizes, of which those of each size need equal GPU memory."""
    return planned(base({"pathways": {"none": ["segment"], "small": ["small"]}, "stages.small": SMALL}), tmp_path)


SMALL = {"task": "segmentation", "data": "hospital", "epochs": 1, "image": {"size": 32}}


def gpu_slots(gpus: float = 1.0) -> Slots:
    return Slots(StageResources(gpus=1.0), Capacity(cpus=16.0, gpus=gpus), (), spare=False)


def make_packing(plan: Plan, store: Store, gpus: float = 1.0) -> Packing:
    return Packing(plan, store, slots=gpu_slots(gpus))


def finish_stage(packing: Packing, plan: Plan, store: Store, name: str, peak: float) -> None:
    publish_record(store, plan, name, gpu_memory={"peak": int(peak * GIB), "total": 80 * GIB})
    packing.ended(name, StageOutcome(status="done"), again=False)


@pytest.mark.parametrize(("peak", "share"), [(0.0, 0.05), (10.0, 0.15), (39.0 / 1.1, 0.5), (72.0, 1.0), (79.0, 1.0)])
def test_share_covers_the_peak_with_a_margin_and_the_cuda_context(peak: float, share: float) -> None:
    assert gpu_share({"peak": int(peak * GIB), "total": 80 * GIB}) == share


def test_first_stage_of_a_shape_gets_a_whole_gpu_and_others_wait(plan: Plan, tmp_path: Path) -> None:
    packing, (first, second, *_) = make_packing(plan, Store(tmp_path), gpus=2), sorted(by_stage(plan)["segment"])
    assert packing.take(first) == 1.0
    assert not packing.may_start(second)
    assert packing.may_start(sorted(by_stage(plan)["small"])[0])


def test_measured_share_of_the_first_stage_is_used_for_others(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    packing, (first, *rest) = make_packing(plan, store), sorted(by_stage(plan)["segment"])
    packing.take(first)
    finish_stage(packing, plan, store, first, peak=30)
    assert [packing.take(name) for name in rest[:2] if packing.may_start(name)] == [0.45, 0.45]
    assert not packing.may_start(rest[2])


def test_share_is_released_when_a_stage_ends(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    packing, (first, second, third, fourth) = make_packing(plan, store), sorted(by_stage(plan)["segment"])
    packing.take(first)
    finish_stage(packing, plan, store, first, peak=30)
    packing.take(second)
    packing.take(third)
    finish_stage(packing, plan, store, second, peak=30)
    assert packing.may_start(fourth)


def test_another_stage_is_measured_after_the_first_failed(plan: Plan, tmp_path: Path) -> None:
    packing, (first, second, *_) = make_packing(plan, Store(tmp_path)), sorted(by_stage(plan)["segment"])
    packing.take(first)
    packing.ended(first, StageOutcome(status="failed"), again=False)
    assert packing.may_start(second)
    assert packing.take(second) == 1.0


def test_stage_that_failed_with_a_share_is_retried_with_a_whole_gpu(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    packing, (first, second, *_) = make_packing(plan, store), sorted(by_stage(plan)["segment"])
    packing.take(first)
    finish_stage(packing, plan, store, first, peak=10)
    assert packing.take(second) == 0.15
    packing.ended(second, StageOutcome(status="failed"), again=True)
    assert packing.take(second) == 1.0


def test_shares_are_read_from_records_in_the_storage(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory={"peak": 10 * GIB, "total": 80 * GIB})
    packing = make_packing(plan, store)
    assert packing.take(second) == 0.15
    assert packing.take(sorted(by_stage(plan)["small"])[0]) == 1.0


def test_stages_with_unlabelled_images_are_of_another_shape_than_stages_without(tmp_path: Path) -> None:
    segment = {"stages.segment": {"task": "consistency", "data": "hospital", "epochs": 1}}
    pathways = {"pathways": {"none": ["segment"]}, "compare.labelled_fraction": [0.5, 1.0], "compare.seeds": [0, 1]}
    plan = planned(base(segment | pathways), tmp_path)
    store, stages = Store(tmp_path / "runs"), by_stage(plan)["segment"]
    first, second, third = sorted(digest for digest in stages if plan.nodes[digest].selection.labelled == 0.5)[:3]
    without = next(digest for digest in stages if plan.nodes[digest].selection.labelled == 1.0)
    memory = {"peak": 10 * GIB, "total": 80 * GIB}
    publish_record(store, plan, first, gpu_memory=memory)
    assert make_packing(plan, store).take(third) == 1.0, "the record does not state the number of unlabelled images"
    publish_record(store, plan, second, gpu_memory=memory, data={"train": 5, "unlabelled": 5})
    assert make_packing(plan, store).take(third) == 0.15
    assert make_packing(plan, store).take(without) == 1.0


def test_shape_without_gpu_record_is_measured(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory=None)
    assert make_packing(plan, store).take(second) == 1.0


def test_damaged_record_is_ignored(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory={"peak": 10 * GIB, "total": 80 * GIB})
    (store.stage(first) / RECORD).write_text(yaml.safe_dump("gone"), encoding="utf-8")
    assert make_packing(plan, store).take(second) == 1.0


def test_rejected_node_is_excluded_from_the_slots(plan: Plan, tmp_path: Path) -> None:
    slots, name = gpu_slots(), sorted(by_stage(plan)["segment"])[0]
    packing = Packing(plan, Store(tmp_path), slots=slots)
    packing.take(name)
    packing.ended(name, StageOutcome(status="rejected", nodes=("faulty",)), again=True)
    assert slots.excluded == {"faulty"}
    assert packing.may_start(name)
