"""What the report knows of stages."""

from pathlib import Path

import pytest

from study.report.cost import cost_blocks, pathway_groups
from study.report.facts import Chain, Facts, StageFacts, facts_of
from study.report.provenance import transfer_blocks
from study.store.store import Store
from tests.study.planning.test_teacher_runs import FRESH, document
from tests.support.records import publish_record
from tests.support.tiny import planned


@pytest.mark.parametrize(
    ("parent", "link", "carries"),
    [(None, "", False), ("0a", "encoder", True), ("0a", "none", False), ("0a", "none; encoder frozen", False)],
)
def test_a_stage_that_nothing_is_carried_to_has_no_transfer(parent: str | None, link: str, carries: bool) -> None:
    stage = StageFacts(
        digest="1b", name="student", task="pseudo_labels", data="mine", network="unet", parent=parent, link=link,
        image_epochs=1, seconds=1.0,
    )  # fmt: skip
    assert stage.carries == carries


def test_what_a_stage_has_of_its_parent_is_named() -> None:
    rows = [("0a", "encoder", ()), ("0a", "encoder", ("0a",)), ("0a", "none", ("0a", "0b")), (None, "", ())]
    stages = [
        StageFacts(
            digest="1b", name="b", task="pseudo_labels", data="mine", network="unet", parent=parent, link=link,
            image_epochs=1, seconds=1.0, teachers=teachers,
        )
        for parent, link, teachers in rows
    ]  # fmt: skip
    assert [stage.start for stage in stages] == ["encoder", "encoder; pseudo-labels", "pseudo-labels", ""]


def test_a_student_that_nothing_is_carried_to_has_initial_weights_and_labels(tmp_path: Path) -> None:
    plan, store = planned(document(FRESH), tmp_path), Store(tmp_path / "runs")
    for digest in plan.nodes:
        publish_record(store, plan, digest, seconds=2.0)
    facts = facts_of(plan, store)
    assert [(group.title, group.parent, group.link) for group in pathway_groups(facts)] == [
        ("segment", None, ""), ("student", 0, "pseudo-labels"),
    ]  # fmt: skip
    *_, grid = cost_blocks(facts)
    rows = [[cell.text for cell in row] for row in grid.rows]  # type: ignore[union-attr]
    assert [row[:6] for row in rows] == [
        ["segment", "initial weights", "segmentation on hospital", "6", "6", "6"],
        ["student", "initial weights", "pseudo_labels on hospital", "2", "2", "2"],
    ]
    (text,) = transfer_blocks(facts)
    assert text.text == "No finished stage starts from the weights of another."  # type: ignore[union-attr]


def test_runs_that_share_teachers_would_train_them_each(tmp_path: Path) -> None:
    other = {"stages.other": {"task": "pseudo_labels", "data": "hospital", "steps": 3, "batch_size": 4,
                              "pseudo_labels": {"ensemble": 3}},
             "pathways": {"none": ["segment", "student"], "other": ["segment", "other"]}}  # fmt: skip
    plan, store = planned(document({**other, "compare.baseline": {}}), tmp_path), Store(tmp_path / "runs")
    for digest in plan.nodes:
        publish_record(store, plan, digest, seconds=2.0)
    facts = facts_of(plan, store)
    texts = [getattr(block, "text", "") for block in cost_blocks(facts)]
    assert any("10 finished stages took 20 s" in text for text in texts)
    assert any("would take 32 s: sharing saved 12 s" in text for text in texts)


def test_stages_that_are_not_known_are_left_out() -> None:
    stage = StageFacts(
        digest="1b", name="b", task="pseudo_labels", data="mine", network="unet", parent="0a", link="none",
        image_epochs=1, seconds=1.0, teachers=("0a", "0c"),
    )  # fmt: skip
    chain = Chain(factors={}, labelled=0.5, fold=0, seed=0, stages=("0a", "1b"), scoring=None)
    facts = Facts(store=Store(Path()), name="s", stages={"1b": stage}, chains=[chain])
    assert facts.needed(chain) == [stage]
