import pytest

from cluster.protocol import QueuedStage
from cluster.scheduling.stage_queue import MAX_REDOS, StageQueue


def chain(*names: str, cost: float = 1.0) -> list[QueuedStage]:
    return [
        QueuedStage(id=name, needs=(names[place - 1],) if place else (), cost=cost) for place, name in enumerate(names)
    ]


def drained(queue: StageQueue) -> list[str]:
    """Hand everything out, one at a time."""
    order = []
    while (name := queue.next()) is not None:
        order.append(name)
        queue.finish(name)
    return order


def test_longest_remaining_chain_is_first() -> None:
    items = [*chain("short"), *chain("a1", "a2", "a3"), QueuedStage(id="heavy", cost=2.5)]

    assert drained(StageQueue(items)) == ["a1", "heavy", "a2", "a3", "short"]


def test_order_does_not_depend_on_the_order_of_items() -> None:
    items = [*chain("b1", "b2"), *chain("a1", "a2"), *chain("c1")]

    assert drained(StageQueue(items)) == drained(StageQueue(reversed(items)))


def test_child_waits_for_all_it_needs() -> None:
    queue = StageQueue(
        [QueuedStage(id="left"), QueuedStage(id="right"), QueuedStage(id="child", needs=("left", "right"))]
    )
    queue.next(), queue.next()

    queue.finish("left")
    assert queue.next() is None
    queue.finish("right")
    assert queue.next() == "child"


def test_need_outside_the_queue_counts_as_met() -> None:
    assert StageQueue([QueuedStage(id="child", needs=("long finished",))]).next() == "child"


def test_done_item_is_not_handed_out_and_its_child_is() -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"])

    assert drained(queue) == ["child"]
    assert queue.finished
    assert queue.done == {"parent", "child"}


def test_running_item_is_not_handed_out_twice() -> None:
    queue = StageQueue(chain("only"))

    assert [queue.next(), queue.next()] == ["only", None]
    assert queue.running == {"only"}


def test_failure_is_retried_once_then_takes_descendants_only() -> None:
    queue = StageQueue([*chain("parent", "child", "grandchild"), *chain("other")])
    assert queue.next() == "parent"
    assert queue.fail("parent", "first")
    assert queue.next() == "parent"
    assert not queue.fail("parent", "second")

    assert (queue.failed, queue.skipped) == ({"parent": "second"}, {"child", "grandchild"})
    assert drained(queue) == ["other"]
    assert queue.finished


def test_final_failure_is_not_retried() -> None:
    queue = StageQueue(chain("only"))
    queue.next()

    assert not queue.fail("only", "lost too often", final=True)
    assert queue.finished


def test_child_of_two_is_skipped_when_one_fails() -> None:
    queue = StageQueue(
        [QueuedStage(id="good"), QueuedStage(id="bad"), QueuedStage(id="child", needs=("good", "bad"))], retries=0
    )
    queue.next(), queue.next()
    queue.fail("bad", "broken")
    queue.finish("good")

    assert queue.next() is None
    assert queue.finished
    assert queue.skipped == {"child"}


def test_put_back_costs_no_attempt() -> None:
    queue = StageQueue(chain("only"), retries=0)
    for _ in range(5):
        assert queue.next() == "only"
        queue.requeue("only")

    assert drained(queue) == ["only"]


@pytest.mark.parametrize("done_before", [True, False])
def test_damaged_parent_runs_again_before_its_child(done_before: bool) -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"] if done_before else ())
    while (name := queue.next()) != "child":
        queue.finish(str(name))

    assert queue.redo("parent", "child", "altered")
    assert drained(queue) == ["parent", "child"]
    assert queue.finished


def test_two_children_that_find_one_damage_cause_one_repetition() -> None:
    items = [QueuedStage(id="parent"), QueuedStage(id="a", needs=("parent",)), QueuedStage(id="b", needs=("parent",))]
    queue = StageQueue(items, done=["parent"])
    queue.next(), queue.next()

    assert queue.redo("parent", "a", "altered")
    assert queue.redo("parent", "b", "altered")
    assert drained(queue) == ["parent", "a", "b"]


def test_sibling_that_fails_while_the_parent_runs_again_waits_for_it() -> None:
    items = [QueuedStage(id="parent"), QueuedStage(id="a", needs=("parent",)), QueuedStage(id="b", needs=("parent",))]
    queue = StageQueue(items, done=["parent"])
    queue.next(), queue.next()
    queue.redo("parent", "a", "altered")
    queue.fail("b", "error")

    assert drained(queue) == ["parent", "a", "b"]


def test_item_that_finds_its_own_results_unusable_runs_again() -> None:
    queue = StageQueue(chain("only"))
    queue.next()

    assert queue.redo("only", "only", "altered")
    assert drained(queue) == ["only"]


def test_damage_without_end_fails_the_child() -> None:
    queue = StageQueue(chain("parent", "child"), done=["parent"])
    again = []
    for _ in range(MAX_REDOS + 1):
        while (name := queue.next()) != "child":
            queue.finish(str(name))
        again.append(queue.redo("parent", "child", "altered"))

    assert again == [True] * MAX_REDOS + [False]
    assert queue.failed == {"child": "altered"}
    assert queue.finished


def test_unusable_item_that_nobody_can_run_fails_the_child() -> None:
    queue = StageQueue([QueuedStage(id="child", needs=("elsewhere",))])
    queue.next()

    assert not queue.redo("elsewhere", "child", "altered")
    assert queue.finished


def test_empty_queue_is_finished() -> None:
    assert StageQueue(()).finished


def test_thousands_of_items_in_one_chain_are_no_recursion() -> None:
    names = [f"{number:05d}" for number in range(5_000)]

    assert drained(StageQueue(chain(*names))) == names


def test_failure_at_the_top_of_a_long_chain_skips_it_all() -> None:
    names = [f"{number:05d}" for number in range(5_000)]
    queue = StageQueue(chain(*names), retries=0)
    queue.next()
    queue.fail(names[0], "broken")

    assert len(queue.skipped) == len(names) - 1


def test_item_added_later_waits_for_what_it_needs() -> None:
    queue = StageQueue(chain("parent"))
    assert queue.next() == "parent"
    queue.add([QueuedStage(id="child", needs=("parent",))])

    assert queue.next() is None
    queue.finish("parent")
    assert queue.next() == "child"


def test_item_added_below_a_failed_one_is_skipped() -> None:
    queue = StageQueue(chain("parent"), retries=0)
    queue.next()
    queue.fail("parent", "broken")
    queue.add(chain("parent", "child", "grandchild"))

    assert queue.finished
    assert queue.skipped == {"child", "grandchild"}


def test_item_that_is_added_again_while_open_runs_once() -> None:
    queue = StageQueue(chain("only"))
    queue.next()
    queue.add(chain("only"))

    assert queue.next() is None
    queue.finish("only")
    assert queue.finished


def test_item_that_is_added_again_after_it_was_done_runs_again() -> None:
    queue = StageQueue(chain("parent", "child"))
    assert drained(queue) == ["parent", "child"]
    queue.add(chain("parent"))

    assert drained(queue) == ["parent"]
    assert queue.finished


def test_abandoned_item_is_neither_done_nor_failed_and_may_come_again() -> None:
    queue = StageQueue(chain("parent", "child"))
    queue.finish(str(queue.next()))
    queue.next()
    queue.abandon("child")

    assert queue.finished
    assert (queue.done, queue.failed, queue.skipped) == ({"parent"}, {}, set())
    queue.add(chain("parent", "child"), done=["parent"])
    assert drained(queue) == ["child"]


def test_item_may_have_retries_of_its_own() -> None:
    queue = StageQueue([QueuedStage(id="once", retries=0)])
    queue.next()

    assert not queue.fail("once", "error")
