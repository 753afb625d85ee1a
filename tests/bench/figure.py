"""One measured quantity with its spread and goal, and functions that measure time."""

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
    """Repeated measurements. `goal`: the upper limit of the median, or the lower limit if `better` is higher.

    `why`: the reason for a missed goal, which is printed with it.
    """

    name: str
    unit: str
    values: Sequence[float]
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"
    why: str = ""

    def record(self) -> dict[str, Any]:
        """Return the figure as JSON types."""
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
    """Return whether a value is worse than another."""
    return value < than if better == "higher" else value > than


def ratio(
    name: str, over: Sequence[float], under: Sequence[float], goal: float | None = None, *, why: str = ""
) -> Figure:
    """Return the speed-up of one side in each round: `over` are the seconds of the other one."""
    values = [other / reference for other, reference in zip(over, under, strict=True)]
    return Figure(name=name, unit="ratio", values=values, goal=goal, better="higher", why=why)


def interleaved(sides: Mapping[str, Callable[[], T]], rounds: int, *, within: float = math.inf) -> dict[str, list[T]]:
    """Call every side once per round, so that disturbances of the machine affect all of them.

    A round that would end later than `within` seconds from now is omitted: a slow machine measures less often.
    """
    results: dict[str, list[T]] = {name: [] for name in sides}
    begun = time.monotonic()
    for number in range(rounds):
        passed = time.monotonic() - begun
        if number and passed * (number + 1) > within * number:
            break
        for name, side in sides.items():
            results[name].append(side())
    return results


def against_best(
    reference: str, sides: Mapping[str, Callable[[], T]], rounds: int, *, within: float, length: Callable[[T], float]
) -> tuple[str, dict[str, list[T]]]:
    """Call every side once; in further rounds, which end within `within` seconds, `own` and the fastest of the others.

    Also returns the name of the fastest. `length` returns the seconds of a call.
    """
    begun = time.monotonic()
    results = interleaved(sides, 1)
    best = min((name for name in sides if name != reference), key=lambda name: length(results[name][0]))
    left = within - (time.monotonic() - begun)
    fit = int(left // (length(results[reference][0]) + length(results[best][0])))
    for name, more in interleaved({name: sides[name] for name in (reference, best)}, min(rounds - 1, fit)).items():
        results[name] += more
    return best, results


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of a call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of this process, and of children that end during a call, over all threads."""
    begun = time.process_time() + children_seconds()
    work()
    return time.process_time() + children_seconds() - begun


def cpu_seconds_of_children(work: Callable[[], object]) -> float:
    """Return the CPU time of the child processes that start and end during a call."""
    begun = children_seconds()
    work()
    return children_seconds() - begun


def children_seconds() -> float:
    """Return the CPU time of all child processes that ended, and of their own children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
