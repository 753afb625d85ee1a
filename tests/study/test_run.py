"""The driver's own decisions; whole runs are in test_faults.py."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.connect import Capacity
from cluster.protocol import StageOutcome
from study.config.schema import Checkpoint
from study.errors import ConfigError
from study.execution.retention import drop_weights
from study.execution.scheduler import _refuse_too_small
from study.execution.worker import Worker
from study.planning.graph import Plan, lineage
from study.planning.pending import pending_stages, set_damaged_aside
from study.store.lease import lease
from study.store.store import WEIGHTS, Store
from study.training.job import RuntimeContext, stage_job
from tests.support.command import histories
from tests.support.tiny import planned, tiny

SMALL = {"stages.classify.epochs": 1, "stages.segment.steps": 2}


def ignore(_: object) -> None:
    """Hear a report and do nothing."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def plan(cache: Path) -> Plan:
    return planned(tiny(SMALL), cache)


def worker(plan: Plan, storage: Path, cache: Path) -> Worker:
    jobs = {digest: stage_job(plan, node) for digest, node in plan.nodes.items()}
    return Worker(jobs, RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=Checkpoint()))


def by_stage(plan: Plan, *, parent: bool) -> list[str]:
    """Digests of target stages that start from another stage, or do not; the classifier is no target."""
    return [digest for digest, node in plan.nodes.items() if digest in plan.scorings and bool(node.parent) == parent]


@pytest.fixture
def finished(plan: Plan, cache: Path, tmp_path: Path) -> Store:
    """The classifier and one segmentation that starts from it."""
    child = by_stage(plan, parent=True)[0]
    work = worker(plan, tmp_path, cache)
    assert [work(digest, ignore) for digest in (str(plan.nodes[child].parent), child)] == [
        StageOutcome(status="done")
    ] * 2
    return Store(tmp_path)


def test_a_driver_brings_no_torch_which_is_for_those_that_train() -> None:
    code = "import sys, study.execution.scheduler; print({'torch', 'timm', 'matplotlib'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_worker_names_a_damaged_parent_and_sets_it_aside(plan: Plan, cache: Path, finished: Store) -> None:
    child = by_stage(plan, parent=True)[1]
    parent = str(plan.nodes[child].parent)
    (finished.stage(parent) / WEIGHTS).write_bytes(b"short")
    work = worker(plan, finished.root, cache)
    outcome = work(child, ignore)

    assert (outcome.status, outcome.redo) == ("redo", parent)
    assert outcome.detail.startswith(f"stage {parent}: {WEIGHTS} has 5 bytes")
    assert not finished.is_finished(parent)
    assert [work(digest, ignore).status for digest in (parent, child)] == ["done", "done"]


def test_worker_leaves_a_claimed_stage(plan: Plan, cache: Path, tmp_path: Path) -> None:
    digest = by_stage(plan, parent=False)[0]
    with lease(Store(tmp_path).work(digest)):
        assert worker(plan, tmp_path, cache)(digest, ignore).status == "busy"


def test_finished_stages_are_not_to_do(plan: Plan, finished: Store) -> None:
    left = pending_stages(plan, finished)

    assert len(left.finished) == 2
    assert set(left.stages) == plan.nodes.keys() - left.finished
    assert not left.again


def test_stages_to_do_stand_parents_first(plan: Plan, tmp_path: Path) -> None:
    stages = pending_stages(plan, Store(tmp_path)).stages
    parents = [plan.nodes[digest].parent for digest in stages]

    assert set(stages) == plan.nodes.keys()
    assert all(parent is None or stages.index(parent) < place for place, parent in enumerate(parents))


def test_parent_whose_weights_were_dropped_is_trained_again_for_a_new_child(plan: Plan, finished: Store) -> None:
    parent = str(plan.nodes[by_stage(plan, parent=True)[1]].parent)
    finished.drop_weights([parent])
    left = pending_stages(plan, finished)

    assert left.again == {parent}
    assert parent in left.stages


def test_parent_whose_weights_are_dropped_while_a_run_goes_on_is_trained_once_more(
    plan: Plan, finished: Store, cache: Path
) -> None:
    child = by_stage(plan, parent=True)[1]
    parent = str(plan.nodes[child].parent)
    work = worker(plan, finished.root, cache)
    work.jobs[parent] = stage_job(plan, plan.nodes[parent], needs_weights=True)  # as for all finished ancestors
    before = histories(finished.root)[parent]
    finished.drop_weights([parent])
    outcome = work(child, ignore)
    assert (outcome.status, outcome.redo) == ("redo", parent)
    assert work(parent, ignore).status == "done"
    assert work(child, ignore).status == "done"
    assert histories(finished.root)[parent] != before


def test_parent_whose_weights_were_dropped_stays_finished_while_no_child_needs_it(cache: Path, finished: Store) -> None:
    alone = planned(tiny(SMALL | {"compare.folds": 1, "data.hospital.split": {"test": {"images": 4}}}), cache)
    work = worker(alone, finished.root, cache)
    for digest in alone.nodes:
        assert work(digest, ignore).status == "done"
    finished.drop_weights(str(node.parent) for node in alone.nodes.values() if node.parent)

    assert pending_stages(alone, finished).stages == ()


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"compare.labelled_fraction": [0.5, 1.0]}, 4),
        ({"compare.seeds": [0, 1]}, 5),
        ({"compare.backbone": ["tu-lcnet_050", "tu-lcnet_035"]}, 5),
        ({"compare.architecture": ["unet", "fpn"]}, 4),
        ({"pathways.again": ["classify", {"stage": "segment", "freeze": ["encoder"]}]}, 2),
        ({"evaluate.threshold": 0.4}, 0),
        ({"compare.folds": 2}, 0),
    ],
    ids=["fraction", "seed", "backbone", "architecture", "pathway", "threshold", "nothing"],
)
def test_growing_a_study_adds_only_what_is_new(cache: Path, plan: Plan, changes: dict[str, Any], new: int) -> None:
    grown = planned(tiny(SMALL | changes), cache)

    assert len(grown.nodes.keys() - plan.nodes.keys()) == new
    assert plan.nodes.keys() <= grown.nodes.keys()


def test_damaged_stage_is_set_aside_and_told(plan: Plan, finished: Store) -> None:
    digest = next(iter(finished.finished()))
    (finished.stage(digest) / "history.parquet").unlink()

    assert set_damaged_aside(plan, finished) == {digest: f"stage {digest}: history.parquet is missing"}
    assert digest not in finished.finished()


def test_ancestors_come_along_once(plan: Plan) -> None:
    children = by_stage(plan, parent=True)
    stages = lineage(plan.node, children)

    assert set(stages) == {*children, str(plan.nodes[children[0]].parent)}


@pytest.mark.parametrize("candidate", [False, True])
def test_a_stage_that_is_ended_keeps_its_checkpoints_unless_a_search_ended_it(
    cache: Path, tmp_path: Path, candidate: bool
) -> None:
    plan = planned(tiny(SMALL | {"stages.segment.steps": 8}), cache)
    digest = by_stage(plan, parent=False)[0]
    made = worker(plan, tmp_path, cache)
    around = replace(made.runtime, checkpoint=Checkpoint(epochs=1, seconds=0))
    work = replace(made, runtime=around, candidate=candidate)

    def end(scores: Mapping[str, float]) -> None:
        if scores["epoch"] > 1:
            raise SystemExit

    with pytest.raises(SystemExit):
        work(digest, end)
    assert bool(list((tmp_path / "work").glob(f"{digest}/*/epoch-*"))) != candidate


@pytest.mark.parametrize(("keep", "left"), [("all", 2), ("parents+best", 1), ("none", 0)])
def test_weights_are_kept_as_the_spec_says(cache: Path, finished: Store, keep: str, left: int) -> None:
    plan = planned(tiny({**SMALL, "keep.weights": keep}), cache)
    drop_weights(plan, finished, frozenset(), ignore)

    assert sum(finished.has_weights(digest) for digest in finished.finished()) == left
    for digest in finished.finished():
        finished.verify(digest)


def test_more_processors_than_the_machine_has_are_refused(cache: Path) -> None:
    plan = planned(tiny({"resources.cpus": 64}), cache)

    with pytest.raises(ConfigError, match=r"resources\.cpus: is 64 and this machine has 2; allowed: "):
        _refuse_too_small(plan, Capacity(cpus=2, gpus=0), 0.0)


def test_cluster_that_is_joined_may_grow(cache: Path) -> None:
    plan = planned(tiny({"resources.cpus": 64}), cache)

    _refuse_too_small(plan, Capacity(cpus=2, gpus=0, joined=True), 0.0)
