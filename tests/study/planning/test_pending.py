"""Pending stages of a plan, given the content of the store."""

import shutil
from pathlib import Path

import pytest

from study.monitoring.plan_summary import summary
from study.planning.graph import Plan
from study.planning.pending import pending_stages, set_damaged_aside
from study.store.store import WEIGHTS, Store
from tests.support.documents import base, compare, planned


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(base(), tmp_path)


def publish(plan: Plan, store: Store, digest: str) -> None:
    """Publish a stage with the files of a finished one, including the scores of the plan."""
    draft = store.work(digest) / "draft"
    draft.mkdir(parents=True)
    (draft / WEIGHTS).write_bytes(b"weights")
    for key in plan.scorings.get(digest, {}):
        (draft / f"images-{key}.parquet").touch()
        (draft / f"scores-{key}.parquet").touch()
    assert store.publish(digest, draft, {"updates": 1, "seconds": 0.0})


def stages(plan: Plan, name: str) -> list[str]:
    return [digest for digest, node in plan.nodes.items() if node.step.stage == name]


def test_in_an_empty_store_all_stages_are_pending_with_parents_first(plan: Plan, store: Store) -> None:
    pending = pending_stages(plan, store)
    assert list(pending.stages) == list(plan.nodes)
    assert pending.finished == pending.again == frozenset()


def test_in_a_complete_store_no_stage_is_pending(plan: Plan, store: Store) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    pending = pending_stages(plan, store)
    assert pending.stages == ()
    assert pending.finished == plan.nodes.keys()


def test_stages_of_other_studies_are_not_counted(plan: Plan, store: Store) -> None:
    (store.root / "stages" / ("0" * 32)).mkdir(parents=True)
    assert pending_stages(plan, store).finished == frozenset()


def test_a_parent_of_finished_children_is_not_trained(plan: Plan, store: Store) -> None:
    for digest in stages(plan, "segment"):
        publish(plan, store, digest)
    assert pending_stages(plan, store).stages == ()


def test_a_finished_parent_is_not_trained_again_for_a_new_child(plan: Plan, store: Store) -> None:
    for digest in [*stages(plan, "classify"), *stages(plan, "boxes")]:
        publish(plan, store, digest)
    assert set(pending_stages(plan, store).stages) == set(stages(plan, "segment"))


def test_a_parent_without_weights_is_trained_again_only_for_a_new_child(plan: Plan, store: Store) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    (parent,) = stages(plan, "classify")
    store.drop_weights([parent])
    assert pending_stages(plan, store).stages == ()
    child = next(digest for digest, node in plan.nodes.items() if node.parent == parent)
    shutil.rmtree(store.stage(child))
    pending = pending_stages(plan, store)
    assert pending.stages == (parent, child)
    assert pending.again == {parent}


def test_an_added_fraction_adds_only_its_own_stages(plan: Plan, store: Store, tmp_path: Path) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    grown = planned(compare(labelled_fraction=[0.25, 0.5, 1.0]), tmp_path)
    assert set(pending_stages(grown, store).stages) == grown.nodes.keys() - plan.nodes.keys()


def test_another_evaluation_size_scores_again_without_training(plan: Plan, store: Store, tmp_path: Path) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    store.drop_weights([*stages(plan, "classify"), *stages(plan, "boxes")])
    larger = planned(base({"evaluate": {"size": 128}}), tmp_path)
    pending = pending_stages(larger, store)
    assert set(pending.stages) == set(stages(plan, "segment"))
    assert pending.again == frozenset()


def test_without_weights_another_size_trains_again_but_another_threshold_does_not(
    plan: Plan, store: Store, tmp_path: Path
) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    targets = stages(plan, "segment")
    store.drop_weights(targets)
    assert pending_stages(planned(base({"evaluate": {"threshold": 0.4}}), tmp_path), store).again == frozenset()
    assert pending_stages(planned(base({"evaluate": {"size": 128}}), tmp_path), store).again == set(targets)


def test_metrics_of_shapes_at_another_threshold_need_the_weights(plan: Plan, store: Store, tmp_path: Path) -> None:
    document = base({"metrics": {"tolerance": 2}})
    measured = planned(document, tmp_path)
    for digest in measured.nodes:
        publish(measured, store, digest)
    targets = stages(measured, "segment")
    store.drop_weights(targets)
    other = planned(base({"metrics": {"tolerance": 2}, "evaluate": {"threshold": 0.4}}), tmp_path)
    assert pending_stages(other, store).again == set(targets)


def test_damaged_stages_are_set_aside_and_pending(plan: Plan, store: Store) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    (broken,) = stages(plan, "boxes")
    (store.stage(broken) / WEIGHTS).write_bytes(b"weight")
    messages = set_damaged_aside(plan, store)
    assert list(messages) == [broken]
    assert "has 6 bytes, not the 7" in messages[broken]
    assert not store.is_finished(broken)
    assert pending_stages(plan, store).stages == ()  # not needed, as its children are finished


def test_scoring_a_trained_stage_again_does_not_count_as_training(plan: Plan, store: Store) -> None:
    for digest in plan.nodes:
        publish(plan, store, digest)
    again = stages(plan, "segment")[0]
    for file in store.stage(again).glob("*.parquet"):
        file.unlink()
    facts = summary(plan, store, store.root)
    assert (facts["stages"]["to_run"], facts["image_epochs"]["to_run"]) == (1, 0)
