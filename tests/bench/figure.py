"""One measured number with its spread and goal, and how time is taken."""

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Repeated measurements. `goal`: what the median should be at most, or at least where `better` is higher.

    `why`: what keeps it from its goal, said where it misses.
    """

    name: str
    unit: str
    values: Sequence[float]
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    why: str = ""

    def record(self) -> dict[str, Any]:
        """Return the figure as JSON's own types."""
        median = statistics.median(self.values)
        return {
            "name": self.name,
            "unit": self.unit,
            "better": self.better,
            "goal": self.goal,
            "met": None if self.goal is None else not is_worse(median, self.goal, self.better),
            "median": median,
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
            "why": self.why,
        }


def is_worse(value: float, than: float, better: str) -> bool:
    """Return whether a value is on the wrong side of another."""
    return value < than if better == "higher" else value > than


def ratio(
    name: str, over: Sequence[float], under: Sequence[float], goal: float | None = None, *, why: str = ""
) -> Figure:
    """Return how many times as fast one side is, round by round: `over` are the seconds of the other one."""
    values = [other / own for other, own in zip(over, under, strict=True)]
    return Figure(name=name, unit="ratio", values=values, goal=goal, better="higher", why=why)


def interleaved(sides: Mapping[str, Callable[[], T]], rounds: int, *, within: float = math.inf) -> dict[str, list[T]]:
    """Call every side once a round, so that what disturbs the machine disturbs all of them.

    A round that would end later than `within` seconds from now is left out: a slow machine measures less often.
    """
    found: dict[str, list[T]] = {name: [] for name in sides}
    begun = time.monotonic()
    for number in range(rounds):
        passed = time.monotonic() - begun
        if number and passed * (number + 1) > within * number:
            break
        for name, side in sides.items():
            found[name].append(side())
    return found


def against_best(
    own: str, sides: Mapping[str, Callable[[], T]], rounds: int, *, within: float, length: Callable[[T], float]
) -> tuple[str, dict[str, list[T]]]:
    """Call every side once; in further rounds, which end `within` seconds, `own` and the shortest of the others.

    Returns the name of that one too. `length`: the seconds of a call.
    """
    begun = time.monotonic()
    found = interleaved(sides, 1)
    best = min((name for name in sides if name != own), key=lambda name: length(found[name][0]))
    left = within - (time.monotonic() - begun)
    fit = int(left // (length(found[own][0]) + length(found[best][0])))
    for name, more in interleaved({name: sides[name] for name in (own, best)}, min(rounds - 1, fit)).items():
        found[name] += more
    return best, found


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of a call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of this process, and of children that end during a call; all threads."""
    begun = time.process_time() + children_seconds()
    work()
    return time.process_time() + children_seconds() - begun


def cpu_seconds_of_children(work: Callable[[], object]) -> float:
    """Return the processor time of the child processes that begin and end during a call."""
    begun = children_seconds()
    work()
    return children_seconds() - begun


def children_seconds() -> float:
    """Return the processor time of all child processes that ended, and of theirs that they waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
