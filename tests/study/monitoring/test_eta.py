"""Estimates of the remaining time, and the status that contains them."""

import json
from pathlib import Path

import pytest

from cluster.protocol import StageOutcome
from study.monitoring.eta import EtaEstimator, left_text
from study.monitoring.progress import StudyProgress
from study.planning.pending import pending_stages
from study.store.store import Store
from tests.support import searched
from tests.support.tiny import planned, tiny


class Clock:
    """A clock that is set by the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def train(eta: EtaEstimator, clock: Clock, name: str, *, epochs: int, seconds: float) -> None:
    """Train a stage to its last epoch in the given number of seconds."""
    eta.started(name)
    for epoch in range(1, epochs + 1):
        clock.now += seconds / epochs
        eta.progressed(name, epoch=epoch, epochs=epochs)
    eta.ended(name, again=False, finished=True)


def test_remaining_time_is_unknown_before_a_stage_has_ended(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    eta.started("a")
    for epoch in (8, 9):
        clock.now += 10
        eta.progressed("a", epoch=epoch, epochs=10)
    assert eta.seconds_left() is None
    assert left_text(None, searching=False).startswith("unknown")


def test_remaining_time_is_remaining_cost_over_rate(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 300.0}, clock=clock)
    train(eta, clock, "a", epochs=4, seconds=20)
    assert eta.seconds_left() == pytest.approx(60)


def test_running_stages_count_by_their_trained_share(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0, "c": 100.0}, clock=clock)
    train(eta, clock, "a", epochs=1, seconds=10)
    clock.now += 5
    for epoch in range(1, 6):
        eta.progressed("b", epoch=epoch, epochs=10)
    assert eta.seconds_left() == pytest.approx(15)


def test_concurrent_stages_add_up_in_the_rate(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0, "c": 200.0}, clock=clock)
    eta.started("a")
    eta.started("b")
    for epoch in (1, 2):
        clock.now += 10
        for name in ("a", "b"):
            eta.progressed(name, epoch=epoch, epochs=2)
    for name in ("a", "b"):
        eta.ended(name, again=False, finished=True)
    assert eta.seconds_left() == pytest.approx(20)


def test_time_before_the_first_report_does_not_affect_the_rate(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    eta.started("a")
    clock.now += 1000  # start-up of processes and imports
    for epoch in range(1, 6):
        clock.now += 2
        eta.progressed("a", epoch=epoch, epochs=5)
    eta.ended("a", again=False, finished=True)
    assert eta.seconds_left() == pytest.approx(10)


def test_epochs_of_an_earlier_run_do_not_affect_the_rate(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0, "c": 100.0}, clock=clock)
    train(eta, clock, "a", epochs=1, seconds=10)
    eta.started("b")
    for epoch in (6, 10):  # resumed after five of ten epochs: half of the stage took ten seconds
        clock.now += 5
        eta.progressed("b", epoch=epoch, epochs=10)
    eta.ended("b", again=False, finished=True)
    assert eta.seconds_left() == pytest.approx(20)


def test_stage_to_be_retried_counts_as_remaining(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    train(eta, clock, "a", epochs=2, seconds=10)
    eta.ended("b", again=True, finished=False)
    assert eta.seconds_left() == pytest.approx(10)


def test_remaining_time_is_zero_when_all_stages_are_finished(clock: Clock) -> None:
    eta = EtaEstimator({"a": 100.0}, clock=clock)
    train(eta, clock, "a", epochs=1, seconds=10)
    assert eta.seconds_left() == 0.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def progress(cache: Path, tmp_path: Path) -> StudyProgress:
    """Progress of a study of five stages, none of which is finished."""
    plan = planned(tiny(), cache)
    return StudyProgress(plan, pending_stages(plan, Store(tmp_path)))


def scores(epoch: int, **metrics: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "epochs": 4,
        "train/loss": 0.5,
        **{name.replace("_", "/", 1): value for name, value in metrics.items()},
    }


def test_status_contains_the_last_epoch_of_each_running_stage(progress: StudyProgress) -> None:
    first, second = list(progress.plan.nodes)[:2]
    progress.started(first)
    progress.started(second)
    progress.progressed(first, scores(1, val_mean_iou=0.2))
    progress.progressed(first, scores(2, val_mean_iou=0.3))
    status = progress.status()

    assert [stage["digest"] for stage in status["running"]] == [first, second]
    assert status["running"][0]["label"] == progress.label(first)
    assert (status["running"][0]["epoch"], status["running"][0]["epochs"]) == (2, 4)
    assert status["running"][0]["scores"] == {"train/loss": 0.5, "val/mean_iou": 0.3}
    assert (status["running"][1]["epoch"], status["running"][1]["scores"]) == (None, {})
    assert status["seconds_left"] is None


def test_undefined_score_is_null_in_json(progress: StudyProgress) -> None:
    name = next(iter(progress.plan.nodes))
    progress.started(name)
    progress.progressed(name, scores(1, val_mean_iou=float("nan")))
    text = json.dumps(progress.status(), allow_nan=False)
    assert '"val/mean_iou": null' in text


def test_descendants_of_a_failed_stage_are_not_counted_as_remaining(progress: StudyProgress) -> None:
    nodes = progress.plan.nodes
    parent = next(node.parent for node in nodes.values() if node.parent)
    assert parent is not None
    remaining = [name for name, node in nodes.items() if name != parent and node.parent is None]
    progress.started(parent)
    progress.ended(parent, StageOutcome(status="failed", detail="Diverged"), again=False)
    assert set(progress._eta.stages) == set(remaining)


def test_status_and_text_state_that_a_search_is_running(cache: Path, tmp_path: Path) -> None:
    plan = searched.planned(searched.searched(), tmp_path, cache)
    progress = StudyProgress(plan, pending_stages(plan, Store(tmp_path)))
    assert progress.status()["searching"] is True
    assert left_text(90.0, searching=True) == "about 90 s for the planned stages; the search adds more"
