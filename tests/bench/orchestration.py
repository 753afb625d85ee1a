"""What Ray, Ray Tune and the queue cost around a stage that does nothing."""

import time
from collections.abc import Iterator, Mapping

from cluster.connect import Capacity, connected
from cluster.execute import Listener, Outcome, Report, execute
from cluster.queue import Item
from tests.bench.figure import Figure


def idle_stages(*, quick: bool) -> Iterator[Figure]:
    """Measure seconds a stage between the first end and the last, so that start-up is not in it."""
    with connected(None) as capacity:
        for count in (30, 100) if quick else (100, 300, 1000):
            # A long run is its own average; short ones are repeated.
            values = [_seconds_each(count, capacity) for _ in range(1 if count > 300 or quick else 3)]
            yield Figure(name=f"a stage that does nothing, of {count:,}", unit="s", values=values, goal=0.1)


def _seconds_each(count: int, capacity: Capacity) -> float:
    """Run pairs of parent and child."""
    items = [
        Item(id=f"{number:05d}", needs=(f"{number - 1:05d}",) if number % 2 else (), cost=1.0)
        for number in range(count)
    ]
    clock = _Clock()
    queue = execute(items, do_nothing, clock, capacity=capacity, cpus=1, gpus=0)
    assert len(queue.done) == count
    return (clock.ends[-1] - clock.ends[0]) / (count - 1)


def do_nothing(name: str, report: Report) -> Outcome:
    """Be done at once."""
    return Outcome(status="done")


class _Clock(Listener):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def started(self, name: str) -> None:
        """Nothing is timed by it."""

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Nothing is reported here."""

    def lost(self, name: str) -> None:
        """Nothing is lost here."""

    def ended(self, name: str, outcome: Outcome, *, again: bool) -> None:
        self.ends.append(time.monotonic())
