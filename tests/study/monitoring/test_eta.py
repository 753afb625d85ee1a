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
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def train(pace: EtaEstimator, clock: Clock, name: str, *, epochs: int, seconds: float) -> None:
    """Train a stage of so many epochs to its end."""
    pace.started(name)
    for epoch in range(1, epochs + 1):
        clock.now += seconds / epochs
        pace.progressed(name, epoch=epoch, epochs=epochs)
    pace.ended(name, again=False, finished=True)


def test_time_left_is_unknown_before_a_stage_is_trained(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    pace.started("a")
    for epoch in (8, 9):
        clock.now += 10
        pace.progressed("a", epoch=epoch, epochs=10)
    assert pace.seconds_left() is None
    assert left_text(None, searching=False).startswith("unknown")


def test_time_left_is_what_is_left_over_the_pace_so_far(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 300.0}, clock=clock)
    train(pace, clock, "a", epochs=4, seconds=20)
    assert pace.seconds_left() == pytest.approx(60)


def test_running_stages_count_by_the_share_that_is_trained(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0, "c": 100.0}, clock=clock)
    train(pace, clock, "a", epochs=1, seconds=10)
    clock.now += 5
    for epoch in range(1, 6):
        pace.progressed("b", epoch=epoch, epochs=10)
    assert pace.seconds_left() == pytest.approx(15)


def test_what_two_processes_train_in_the_same_time_counts_together(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0, "c": 200.0}, clock=clock)
    pace.started("a")
    pace.started("b")
    for epoch in (1, 2):
        clock.now += 10
        for name in ("a", "b"):
            pace.progressed(name, epoch=epoch, epochs=2)
    for name in ("a", "b"):
        pace.ended(name, again=False, finished=True)
    assert pace.seconds_left() == pytest.approx(20)


def test_time_before_the_first_report_is_not_the_pace(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    pace.started("a")
    clock.now += 1000  # processes start, libraries are read
    for epoch in range(1, 6):
        clock.now += 2
        pace.progressed("a", epoch=epoch, epochs=5)
    pace.ended("a", again=False, finished=True)
    assert pace.seconds_left() == pytest.approx(10)


def test_epochs_from_before_this_run_do_not_count_as_its_pace(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0, "c": 100.0}, clock=clock)
    train(pace, clock, "a", epochs=1, seconds=10)
    pace.started("b")
    for epoch in (6, 10):  # resumed after five of ten epochs: half of the stage took ten seconds
        clock.now += 5
        pace.progressed("b", epoch=epoch, epochs=10)
    pace.ended("b", again=False, finished=True)
    assert pace.seconds_left() == pytest.approx(20)


def test_stage_that_runs_once_more_is_still_to_do(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0, "b": 100.0}, clock=clock)
    train(pace, clock, "a", epochs=2, seconds=10)
    pace.ended("b", again=True, finished=False)
    assert pace.seconds_left() == pytest.approx(10)


def test_nothing_left_takes_no_time(clock: Clock) -> None:
    pace = EtaEstimator({"a": 100.0}, clock=clock)
    train(pace, clock, "a", epochs=1, seconds=10)
    assert pace.seconds_left() == 0.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def progress(cache: Path, tmp_path: Path) -> StudyProgress:
    """The progress of a study of five stages, none of which is done."""
    plan = planned(tiny(), cache)
    return StudyProgress(plan, pending_stages(plan, Store(tmp_path)))


def scores(epoch: int, **others: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "epochs": 4,
        "train/loss": 0.5,
        **{name.replace("_", "/", 1): v for name, v in others.items()},
    }


def test_driver_tells_of_each_running_stage_its_last_epoch(progress: StudyProgress) -> None:
    first, second = list(progress.plan.nodes)[:2]
    progress.started(first)
    progress.started(second)
    progress.progressed(first, scores(1, val_mean_iou=0.2))
    progress.progressed(first, scores(2, val_mean_iou=0.3))
    told = progress.status()

    assert [one["digest"] for one in told["running"]] == [first, second]
    assert told["running"][0]["label"] == progress.label(first)
    assert (told["running"][0]["epoch"], told["running"][0]["epochs"]) == (2, 4)
    assert told["running"][0]["scores"] == {"train/loss": 0.5, "val/mean_iou": 0.3}
    assert (told["running"][1]["epoch"], told["running"][1]["scores"]) == (None, {})
    assert told["seconds_left"] is None


def test_undefined_score_is_null_in_json(progress: StudyProgress) -> None:
    name = next(iter(progress.plan.nodes))
    progress.started(name)
    progress.progressed(name, scores(1, val_mean_iou=float("nan")))
    text = json.dumps(progress.status(), allow_nan=False)
    assert '"val/mean_iou": null' in text


def test_stages_below_a_failed_one_take_no_time(progress: StudyProgress) -> None:
    nodes = progress.plan.nodes
    parent = next(node.parent for node in nodes.values() if node.parent)
    assert parent is not None
    alone = [name for name, node in nodes.items() if name != parent and node.parent is None]
    progress.started(parent)
    progress.ended(parent, StageOutcome(status="failed", detail="Diverged"), again=False)
    assert set(progress._eta.stages) == set(alone)


def test_search_that_has_not_ended_is_said(cache: Path, tmp_path: Path) -> None:
    plan = searched.planned(searched.searched(), tmp_path, cache)
    progress = StudyProgress(plan, pending_stages(plan, Store(tmp_path)))
    assert progress.status()["searching"] is True
    assert left_text(90.0, searching=True) == "about 90 s for the planned stages; the search adds more"
