"""One measured number with its spread, and how processor time is taken."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Repeated measurements of one cost; lower is better. `goal` is the most the median should be."""

    name: str
    unit: str
    values: Sequence[float]
    goal: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the figure as JSON's own types."""
        return {
            "name": self.name,
            "unit": self.unit,
            "goal": self.goal,
            "median": statistics.median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "values": list(self.values),
        }


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the processor time of this process, all threads, during a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def cpu_seconds_of_children(work: Callable[[], object]) -> float:
    """Return the processor time of the child processes that begin and end during a call."""
    begun = _children()
    work()
    return _children() - begun


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
