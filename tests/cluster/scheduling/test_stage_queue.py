"""The queue of stages: order, retries, damage, and stages that are added later."""

import pytest

from cluster.protocol import QueuedStage
from cluster.scheduling.stage_queue import MAX_REDOS, StageQueue


def chain(*names: str, cost: float = 1.0) -> list[QueuedStage]:
    return [
        QueuedStage(id=name, needs=(names[position - 1],) if position else (), cost=cost)
        for position, name in enumerate(names)
    ]


def run_all(queue: StageQueue) -> list[str]:
    """Finish all stages one at a time and return their order."""
    order = []
    while (name := queue.next()) is not None:
        order.append(name)
        queue.finish(name)
    return order


def test_longest_remaining_chain_is_first() -> None:
    stages = [*chain("short"), *chain("a1", "a2", "a3"), QueuedStage(id="heavy", cost=2.5)]

    assert run_all(StageQueue(stages)) == ["a1", "heavy", "a2", "a3", "short"]


def test_order_is_independent_of_the_order_of_insertion() -> None:
    items = [*chain("b1", "b2"), *chain("a1", "a2"), *chain("c1")]

    assert run_all(StageQueue(items)) == run_all(StageQueue(reversed(items)))


def test_child_waits_for_all_its_parents() -> None:
    queue = StageQueue(
        [QueuedStage(id="left"), QueuedStage(id="right"), QueuedStage(id="child", needs=("left", "right"))]
    )
    queue.next(), queue.next()

    queue.finish("left")
    assert queue.next() is None
    queue.finish("right")
    assert queue.next() == "child"


def test_parent_outside_the_queue_counts_as_done() -> None:
    assert StageQueue([QueuedStage(id="child", needs=("long finished",))]).next() == "child"


def test_done_stage_is_not_run_but_its_child_is() -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"])

    assert run_all(queue) == ["child"]
    assert queue.finished
    assert queue.done == {"parent", "child"}


def test_running_stage_is_not_returned_again() -> None:
    queue = StageQueue(chain("only"))

    assert [queue.next(), queue.next()] == ["only", None]
    assert queue.running == {"only"}


def test_failed_stage_is_retried_once_then_only_its_descendants_are_skipped() -> None:
    queue = StageQueue([*chain("parent", "child", "grandchild"), *chain("other")])
    assert queue.next() == "parent"
    assert queue.fail("parent", "first")
    assert queue.next() == "parent"
    assert not queue.fail("parent", "second")

    assert (queue.failed, queue.skipped) == ({"parent": "second"}, {"child", "grandchild"})
    assert run_all(queue) == ["other"]
    assert queue.finished


def test_final_failure_is_not_retried() -> None:
    queue = StageQueue(chain("only"))
    queue.next()

    assert not queue.fail("only", "lost too often", final=True)
    assert queue.finished


def test_child_is_skipped_if_one_of_its_parents_fails() -> None:
    queue = StageQueue(
        [QueuedStage(id="good"), QueuedStage(id="bad"), QueuedStage(id="child", needs=("good", "bad"))], retries=0
    )
    queue.next(), queue.next()
    queue.fail("bad", "broken")
    queue.finish("good")

    assert queue.next() is None
    assert queue.finished
    assert queue.skipped == {"child"}


def test_requeue_does_not_count_as_a_retry() -> None:
    queue = StageQueue(chain("only"), retries=0)
    for _ in range(5):
        assert queue.next() == "only"
        queue.requeue("only")

    assert run_all(queue) == ["only"]


@pytest.mark.parametrize("done_before", [True, False])
def test_damaged_parent_runs_again_before_its_child(done_before: bool) -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"] if done_before else ())
    while (name := queue.next()) != "child":
        queue.finish(str(name))

    assert queue.redo("parent", "child", "altered")
    assert run_all(queue) == ["parent", "child"]
    assert queue.finished


def test_damage_reported_by_two_children_repeats_the_parent_once() -> None:
    stages = [QueuedStage(id="parent"), QueuedStage(id="a", needs=("parent",)), QueuedStage(id="b", needs=("parent",))]
    queue = StageQueue(stages, done=["parent"])
    queue.next(), queue.next()

    assert queue.redo("parent", "a", "altered")
    assert queue.redo("parent", "b", "altered")
    assert run_all(queue) == ["parent", "a", "b"]


def test_failed_sibling_is_retried_after_the_repeated_parent() -> None:
    stages = [QueuedStage(id="parent"), QueuedStage(id="a", needs=("parent",)), QueuedStage(id="b", needs=("parent",))]
    queue = StageQueue(stages, done=["parent"])
    queue.next(), queue.next()
    queue.redo("parent", "a", "altered")
    queue.fail("b", "error")

    assert run_all(queue) == ["parent", "a", "b"]


def test_stage_with_unusable_results_runs_again() -> None:
    queue = StageQueue(chain("only"))
    queue.next()

    assert queue.redo("only", "only", "altered")
    assert run_all(queue) == ["only"]


def test_child_fails_after_too_many_damaged_parents() -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"])
    repeated = []
    for _ in range(MAX_REDOS + 1):
        while (name := queue.next()) != "child":
            queue.finish(str(name))
        repeated.append(queue.redo("parent", "child", "altered"))

    assert repeated == [True] * MAX_REDOS + [False]
    assert queue.failed == {"child": "altered"}
    assert queue.finished


def test_child_fails_if_its_damaged_parent_cannot_be_run() -> None:
    queue = StageQueue([QueuedStage(id="child", needs=("unknown",))])
    queue.next()

    assert not queue.redo("unknown", "child", "altered")
    assert queue.finished


def test_empty_queue_is_finished() -> None:
    assert StageQueue(()).finished


def test_chain_of_thousands_of_stages_does_not_recurse() -> None:
    names = [f"{number:05d}" for number in range(5_000)]

    assert run_all(StageQueue(chain(*names))) == names


def test_failure_skips_all_descendants_of_a_long_chain() -> None:
    names = [f"{number:05d}" for number in range(5_000)]
    queue = StageQueue(chain(*names), retries=0)
    queue.next()
    queue.fail(names[0], "broken")

    assert len(queue.skipped) == len(names) - 1


def test_added_stage_waits_for_its_parents() -> None:
    queue = StageQueue(chain("parent"))
    assert queue.next() == "parent"
    queue.add([QueuedStage(id="child", needs=("parent",))])

    assert queue.next() is None
    queue.finish("parent")
    assert queue.next() == "child"


def test_added_descendants_of_a_failed_stage_are_skipped() -> None:
    queue = StageQueue(chain("parent"), retries=0)
    queue.next()
    queue.fail("parent", "broken")
    queue.add(chain("parent", "child", "grandchild"))

    assert queue.finished
    assert queue.skipped == {"child", "grandchild"}


def test_stage_added_again_while_running_runs_once() -> None:
    queue = StageQueue(chain("only"))
    queue.next()
    queue.add(chain("only"))

    assert queue.next() is None
    queue.finish("only")
    assert queue.finished


def test_stage_added_again_after_it_was_done_runs_again() -> None:
    queue = StageQueue(chain("parent", "child"))
    assert run_all(queue) == ["parent", "child"]
    queue.add(chain("parent"))

    assert run_all(queue) == ["parent"]
    assert queue.finished


def test_abandoned_stage_is_neither_done_nor_failed_and_can_be_added_again() -> None:
    queue = StageQueue(chain("parent", "child"))
    queue.finish(str(queue.next()))
    queue.next()
    queue.abandon("child")

    assert queue.finished
    assert (queue.done, queue.failed, queue.skipped) == ({"parent"}, {}, set())
    queue.add(chain("parent", "child"), done=["parent"])
    assert run_all(queue) == ["child"]


def test_retries_of_a_stage_override_the_default() -> None:
    queue = StageQueue([QueuedStage(id="once", retries=0)])
    queue.next()

    assert not queue.fail("once", "error")
