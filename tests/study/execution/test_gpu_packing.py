"""Who shares a GPU, by records that the tests write; what runs is made up."""

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
    """Eight target stages of one shape beside a fold's four of another, by their image size."""
    return planned(base({"pathways": {"none": ["segment"], "small": ["small"]}, "stages.small": SMALL}), tmp_path)


SMALL = {"task": "segmentation", "data": "hospital", "epochs": 1, "image": {"size": 32}}


def whole(gpus: float = 1.0) -> Slots:
    return Slots(StageResources(gpus=1.0), Capacity(cpus=16.0, gpus=gpus), (), spare=False)


def packing(plan: Plan, store: Store, gpus: float = 1.0) -> Packing:
    return Packing(plan, store, slots=whole(gpus))


def finish(shares: Packing, plan: Plan, store: Store, name: str, peak: float) -> None:
    publish_record(store, plan, name, gpu_memory={"peak": int(peak * GIB), "total": 80 * GIB})
    shares.ended(name, StageOutcome(status="done"), again=False)


@pytest.mark.parametrize(("peak", "share"), [(0.0, 0.05), (10.0, 0.15), (39.0 / 1.1, 0.5), (72.0, 1.0), (79.0, 1.0)])
def test_a_share_holds_a_tenth_more_than_the_peak_and_cuda_itself(peak: float, share: float) -> None:
    assert gpu_share({"peak": int(peak * GIB), "total": 80 * GIB}) == share


def test_the_first_of_a_shape_has_a_whole_gpu_and_the_others_wait(plan: Plan, tmp_path: Path) -> None:
    shares, (first, second, *_) = packing(plan, Store(tmp_path), gpus=2), sorted(by_stage(plan)["segment"])
    assert shares.take(first) == 1.0
    assert not shares.may_start(second)
    assert shares.may_start(sorted(by_stage(plan)["small"])[0])


def test_what_the_first_took_is_what_the_others_get(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    shares, (first, *others) = packing(plan, store), sorted(by_stage(plan)["segment"])
    shares.take(first)
    finish(shares, plan, store, first, peak=30)
    assert [shares.take(name) for name in others[:2] if shares.may_start(name)] == [0.45, 0.45]
    assert not shares.may_start(others[2])


def test_room_is_given_back_where_a_stage_ends(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    shares, (first, second, third, fourth) = packing(plan, store), sorted(by_stage(plan)["segment"])
    shares.take(first)
    finish(shares, plan, store, first, peak=30)
    shares.take(second)
    shares.take(third)
    finish(shares, plan, store, second, peak=30)
    assert shares.may_start(fourth)


def test_another_takes_the_place_of_a_first_that_failed(plan: Plan, tmp_path: Path) -> None:
    shares, (first, second, *_) = packing(plan, Store(tmp_path)), sorted(by_stage(plan)["segment"])
    shares.take(first)
    shares.ended(first, StageOutcome(status="failed"), again=False)
    assert shares.may_start(second)
    assert shares.take(second) == 1.0


def test_a_stage_that_failed_in_a_share_is_tried_again_with_a_whole_gpu(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    shares, (first, second, *_) = packing(plan, store), sorted(by_stage(plan)["segment"])
    shares.take(first)
    finish(shares, plan, store, first, peak=10)
    assert shares.take(second) == 0.15
    shares.ended(second, StageOutcome(status="failed"), again=True)
    assert shares.take(second) == 1.0


def test_shares_are_known_from_what_is_in_the_storage(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory={"peak": 10 * GIB, "total": 80 * GIB})
    shares = packing(plan, store)
    assert shares.take(second) == 0.15
    assert shares.take(sorted(by_stage(plan)["small"])[0]) == 1.0


def test_a_shape_that_ran_without_gpu_is_measured(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory=None)
    assert packing(plan, store).take(second) == 1.0


def test_a_damaged_record_tells_nothing(plan: Plan, tmp_path: Path) -> None:
    store, (first, second, *_) = Store(tmp_path / "runs"), sorted(by_stage(plan)["segment"])
    publish_record(store, plan, first, gpu_memory={"peak": 10 * GIB, "total": 80 * GIB})
    (store.stage(first) / RECORD).write_text(yaml.safe_dump("gone"), encoding="utf-8")
    assert packing(plan, store).take(second) == 1.0


def test_gpus_of_a_node_that_is_left_out_count_no_more(plan: Plan, tmp_path: Path) -> None:
    slots, name = whole(), sorted(by_stage(plan)["segment"])[0]
    shares = Packing(plan, Store(tmp_path), slots=slots)
    shares.take(name)
    shares.ended(name, StageOutcome(status="rejected", nodes=("blind",)), again=True)
    assert slots.excluded == {"blind"}
    assert shares.may_start(name)
