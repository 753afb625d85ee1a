"""Stages with pseudo-labels in a plan: their teachers, what these read, and what waits for them."""

from pathlib import Path
from typing import Any

import pytest

from cluster.protocol import StageOutcome
from study.execution.retention import drop_weights
from study.execution.scheduler import _item
from study.execution.study_folder import FailureLog
from study.monitoring.plan_summary import summary
from study.monitoring.progress import StudyProgress
from study.monitoring.tracking import build_run
from study.planning.graph import Plan, lineage
from study.planning.pending import pending_stages
from study.store.store import Store
from tests.study.planning.test_pending import publish
from tests.support.tiny import planned, tiny

TRAINS = {"data": "hospital", "steps": 2, "batch_size": 4}
FRESH = {"pathways": {"none": ["segment", {"stage": "student", "carry": "none"}]}, "compare.baseline": {}}


def document(changes: dict[str, Any] | None = None, **block: object) -> dict[str, Any]:
    """Return a study of self-training with three networks."""
    stages = {
        "segment": {"task": "segmentation", **TRAINS},
        "student": {"task": "pseudo_labels", **TRAINS, "pseudo_labels": {"ensemble": 3, **block}},
    }
    pathways = {"none": ["segment"], "self_training": ["segment", "student"]}
    return tiny({
        "stages": stages, "pathways": pathways, "compare.labelled_fraction": [0.5], **(changes or {}),
    })  # fmt: skip


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(document(), tmp_path)


def students(plan: Plan) -> list[str]:
    return [digest for digest, node in plan.nodes.items() if node.teachers]


def test_teachers_are_the_stage_before_and_runs_of_it_with_other_seeds(plan: Plan) -> None:
    assert len(students(plan)) == 2
    assert len(plan.nodes) == 2 * (3 + 1)
    for digest in students(plan):
        student = plan.nodes[digest]
        teachers = [plan.nodes[teacher] for teacher in student.teachers]
        assert student.parent == student.teachers[0]
        assert student.needs == student.teachers
        assert len({teacher.seed for teacher in teachers}) == 3
        assert len({(teacher.identity.digest, teacher.selection, teacher.parent) for teacher in teachers}) == 1


@pytest.mark.parametrize("pool", ["hidden", "all"])
def test_no_teacher_reads_an_image_of_a_test_fold_of_its_student(pool: str, tmp_path: Path) -> None:
    changes = {"compare.folds": 3, "compare.seeds": [0, 1], "compare.labelled_fraction": [0.3, 0.6]}
    plan = planned(document(changes, unlabelled=pool), tmp_path)
    view = plan.views["hospital"]
    checked = 0
    for replicate in plan.replicates:
        test = set(plan.split(replicate).test)
        for digest in lineage(plan.node, replicate.chain[-1:]):
            rows = view.stage_rows(plan.nodes[digest].selection)
            assert test.isdisjoint((*rows.train, *rows.validation, *rows.unlabelled))
            checked += 1
    assert checked == 3 * 2 * 2 * (1 + 4)


def test_replicates_share_no_teacher(tmp_path: Path) -> None:
    changes = {"compare.seeds": [0, 1, 2], "data.hospital.split": {"seed": 3}}
    plan = planned(document(changes, ensemble=4), tmp_path)
    teachers = [plan.nodes[digest].teachers for digest in students(plan)]
    assert len(teachers) == 6
    assert len(set().union(*teachers)) == 24


def test_the_number_of_teachers_changes_the_student_alone(tmp_path: Path) -> None:
    plans = [planned(document(ensemble=number), tmp_path) for number in (1, 2, 3)]
    members = [set(plan.nodes) - set(students(plan)) for plan in plans]
    assert members[0] < members[1] < members[2]
    assert not set(students(plans[1])) & set(students(plans[2]))


def test_a_second_student_is_taught_by_students_that_have_the_same_teachers(tmp_path: Path) -> None:
    again = {"stages.again": {"task": "pseudo_labels", **TRAINS, "pseudo_labels": {"ensemble": 2}},
             "pathways": {"none": ["segment", "student", "again"]}, "compare.baseline": {}}  # fmt: skip
    plan = planned(document(again), tmp_path)
    for digest in (replicate.chain[-1] for replicate in plan.replicates):
        first, second = (plan.nodes[teacher] for teacher in plan.nodes[digest].teachers)
        assert first.teachers == second.teachers
        assert first.seed != second.seed
        assert len(lineage(plan.node, [digest])) == 1 + 2 + 3
    order = list(plan.nodes)
    assert all(order.index(need) < order.index(digest) for digest in order for need in plan.nodes[digest].needs)


def test_without_images_to_label_there_is_no_further_run(tmp_path: Path) -> None:
    plan = planned(document({"compare.labelled_fraction": [1.0]}), tmp_path)
    assert len(plan.nodes) == 2 * 2
    assert not students(plan)


def test_a_student_waits_for_all_teachers(plan: Plan) -> None:
    for digest in students(plan):
        assert _item(plan, digest).needs == plan.nodes[digest].teachers


def test_teachers_without_weights_are_trained_again_for_a_student(plan: Plan, tmp_path: Path) -> None:
    store, (first, second) = Store(tmp_path / "runs"), students(plan)
    for digest in plan.nodes:
        if digest != first:
            publish(plan, store, digest)
    store.drop_weights(frozenset(plan.nodes) - {second})
    pending = pending_stages(plan, store)
    assert set(pending.stages) == {first, *plan.nodes[first].teachers}
    assert pending.again == set(plan.nodes[first].teachers)


def test_weights_of_teachers_are_kept_as_those_of_parents(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    for digest in plan.nodes:
        publish(plan, store, digest)
    drop_weights(plan, store, frozenset(), print)
    kept = {digest for digest in plan.nodes if store.has_weights(digest)}
    assert kept == {teacher for digest in students(plan) for teacher in plan.nodes[digest].teachers}


def test_the_naive_number_of_stages_counts_the_further_runs(plan: Plan, tmp_path: Path) -> None:
    counts = summary(plan, Store(tmp_path / "runs"), tmp_path)["stages"]
    assert counts["naive"] == 2 * 1 + 2 * 4
    assert counts["unique"] == 2 * 4


def test_runs_of_a_stage_that_a_search_changes_wait_for_it(tmp_path: Path) -> None:
    search = {"trials": 2, "nested": True, "space": {"student.optimizer.lr": {"uniform": [0.1, 0.2]}}}
    plan = planned(document({"search": search}), tmp_path)
    assert not any(node.teachers for node in plan.nodes.values())
    waiting = plan.graph.after_search.values()
    assert {node.step.stage for node in waiting if node.teachers} == {"student"}
    assert len(waiting) == 2 * 3


def test_a_student_that_nothing_is_carried_to_depends_on_its_teachers_and_on_initial_weights(tmp_path: Path) -> None:
    links = {"pathways": {"none": ["segment", {"stage": "student", "carry": "none"}]}, "compare.baseline": {}}
    plan = planned(document(links), tmp_path)
    for digest in students(plan):
        assert plan.nodes[digest].needs == plan.nodes[digest].teachers
        assert (plan.nodes[digest].carried_from, plan.nodes[digest].start) == (None, "random")
    slower = planned(document({**links, "stages.segment.optimizer": {"lr": 0.1}}), tmp_path)
    assert set(students(plan)).isdisjoint(students(slower))


@pytest.mark.parametrize("changes", [{}, FRESH], ids=["carried", "fresh"])
@pytest.mark.parametrize("labelled", [[0.5], [1.0], [0.5, 1.0]])
def test_a_new_study_runs_every_stage_of_its_plan(
    labelled: list[float], changes: dict[str, Any], tmp_path: Path
) -> None:
    plan = planned(document({**changes, "compare.labelled_fraction": labelled}), tmp_path)
    assert set(pending_stages(plan, Store(tmp_path / "runs")).stages) == set(plan.nodes)


def test_without_images_to_label_a_chain_starts_with_the_student_that_nothing_is_carried_to(tmp_path: Path) -> None:
    plan = planned(document({**FRESH, "compare.labelled_fraction": [1.0]}), tmp_path)
    assert [node.step.stage for node in plan.nodes.values()] == ["student", "student"]
    assert all(plan.nodes[digest].needs == () for replicate in plan.replicates for digest in replicate.chain)
    counts = summary(plan, Store(tmp_path / "runs"), tmp_path)["stages"]
    assert (counts["naive"], counts["unique"]) == (2, 2)


def test_a_search_of_a_student_defers_it_also_where_it_needs_no_other_stage(tmp_path: Path) -> None:
    search = {"trials": 2, "nested": True, "space": {"student.optimizer.lr": {"uniform": [0.1, 0.2]}}}
    plan = planned(document({**FRESH, "compare.labelled_fraction": [0.5, 1.0], "search": search}), tmp_path)
    assert {node.step.stage for node in plan.nodes.values()} == {"segment"}
    assert [node.step.stage for node in plan.graph.after_search.values()].count("student") == 4


def test_stages_come_before_all_that_they_need(tmp_path: Path) -> None:
    changes = {"stages.before": {"task": "segmentation", **TRAINS, "data": "clinic"},
               "pathways": {"none": ["before", "segment", "student"], "short": ["before", "segment"]}}  # fmt: skip
    plan = planned(document(changes), tmp_path)
    for digests in ([replicate.chain[-1] for replicate in plan.replicates], students(plan)):
        order = list(lineage(plan.node, digests))
        assert set(digests) < set(order)
        assert all(order.index(digest) < order.index(need) for digest in order for need in plan.nodes[digest].needs)


def test_a_student_on_other_data_has_the_split_of_its_teachers(tmp_path: Path) -> None:
    trains = {**TRAINS, "data": "clinic"}
    changes = {"stages.first": {"task": "segmentation", **trains, "seed": 5},
               "stages.second": {"task": "pseudo_labels", **trains, "pseudo_labels": {"unlabelled": "all"}},
               "pathways": {"none": ["first", "second", "segment"]}, "compare.baseline": {}}  # fmt: skip
    plan = planned(document(changes), tmp_path)
    first, second = (plan.nodes[digest] for digest in plan.replicates[0].chain[:2])
    rows = [plan.views["clinic"].stage_rows(node.selection) for node in (first, second)]
    assert (first.seed, second.seed) == (5, 0)
    assert (rows[0].train, rows[0].validation) == (rows[1].train, rows[1].validation)


def test_further_runs_are_named_as_teachers(plan: Plan, tmp_path: Path) -> None:
    store, (student, _) = Store(tmp_path / "runs"), students(plan)
    teachers = plan.nodes[student].teachers
    assert [plan.nodes[digest].name for digest in teachers] == ["segment", "segment teacher 2", "segment teacher 3"]
    progress = StudyProgress(plan, pending_stages(plan, store))
    assert progress.label(teachers[1]).startswith("segment teacher 2 ")
    run = build_run(plan, teachers[2])
    assert run.name.startswith("segment teacher 3 ")
    assert run.tags["pathway"] == "self_training"
    log = FailureLog(plan, store)
    log._file.parent.mkdir(parents=True)
    log.ended(teachers[1], StageOutcome(status="failed", detail="out of disk"), again=False)
    assert '"segment teacher 2"' in log._file.read_text()
