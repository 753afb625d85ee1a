"""Counts of stages that run, fail, are repeated, or are added by a search."""

from pathlib import Path

import pytest

from cluster.protocol import StageOutcome
from study.monitoring.progress import StudyProgress
from study.planning.pending import PendingStages
from tests.support import searched
from tests.support.documents import planned
from tests.support.tiny import tiny

DONE = StageOutcome(status="done")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def progress_of(stages: tuple[str, ...], cache: Path) -> StudyProgress:
    plan = planned(tiny(), cache)
    finished = frozenset(plan.nodes) - set(stages)
    return StudyProgress(plan, PendingStages(stages=stages, finished=finished, again=frozenset(), scored=frozenset()))


def test_status_has_the_rates_of_running_stages(cache: Path) -> None:
    plan, now = planned(tiny(), cache), [0.0]
    pending = PendingStages(stages=tuple(plan.nodes), finished=frozenset(), again=frozenset(), scored=frozenset())
    progress = StudyProgress(plan, pending, clock=lambda: now[0])
    first, second = (digest for digest, node in plan.nodes.items() if node.step.stage == "segment" and not node.parent)
    for digest in (first, second):
        progress.started(digest)
    assert progress.status()["images_per_second"] is None
    for epoch, now[0] in ((1, 10.0), (2, 12.0)):
        progress.progressed(first, {"epoch": epoch, "epochs": 12, "updates": 2 * epoch, "train/loss": 0.5})
    running = {stage["digest"]: stage for stage in progress.status()["running"]}
    assert running[first]["updates"] == 4
    assert running[first]["updates_per_second"] == 1.0
    assert running[first]["images_per_second"] == 4.0  # 24 steps of 4 images in 12 epochs, one epoch in 2 s
    assert (running[second]["updates_per_second"], running[second]["images_per_second"]) == (None, None)
    assert progress.status()["images_per_second"] == 4.0


def test_parent_reported_damaged_by_two_children_is_counted_once(cache: Path) -> None:
    plan = planned(tiny(), cache)
    parent = next(node.parent for node in plan.nodes.values() if node.parent)
    children = tuple(digest for digest, node in plan.nodes.items() if node.parent == parent)
    assert parent is not None
    progress = progress_of(children, cache)
    redo = StageOutcome(status="redo", redo=parent)
    for child in children:
        progress.started(child)
    for child in children:
        progress.ended(child, redo, again=True)
    assert (progress.done, progress.total) == (0, len(children) + 1)
    for digest in (parent, *children):
        progress.started(digest)
        progress.ended(digest, DONE, again=False)
    total = len(plan.nodes)
    assert progress.counts() == {"total": total, "finished": total, "running": 0, "waiting": 0, "failed": 0}


def test_descendants_of_a_failed_stage_count_as_waiting(cache: Path) -> None:
    plan = planned(tiny(), cache)
    parent = next(node.parent for node in plan.nodes.values() if node.parent)
    assert parent is not None
    progress = progress_of(tuple(plan.nodes), cache)
    progress.started(parent)
    progress.ended(parent, StageOutcome(status="failed", detail="Diverged"), again=False)
    children = [digest for digest, node in plan.nodes.items() if node.parent == parent]
    for child in children:
        progress.ended(child, StageOutcome(status="skipped"), again=False)
    assert progress.counts()["failed"] == 1
    assert progress.counts()["waiting"] == len(plan.nodes) - 1


def test_skipped_candidate_is_removed_from_the_total(cache: Path, tmp_path: Path) -> None:
    plan = searched.planned(searched.searched(), tmp_path, cache)
    pending = PendingStages(stages=(), finished=frozenset(), again=frozenset(), scored=frozenset())
    progress = StudyProgress(plan, pending)
    candidate = next(digest for digest in plan.candidates if digest not in plan.nodes)
    progress.expect([candidate])
    assert progress.total == 1
    progress.ended(candidate, StageOutcome(status="skipped"), again=False)
    assert progress.total == 0
