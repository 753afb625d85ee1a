"""A listener and a stage for tests of the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.protocol import ReportFunction, StageOutcome


@dataclass(eq=False)
class RecordingListener:
    """Records all calls in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    outcomes: dict[str, list[StageOutcome]] = field(default_factory=dict)
    scores: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    loss_reasons: list[str] = field(default_factory=list)

    def started(self, name: str) -> None:
        self.events.append(("started", name))

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        self.scores.setdefault(name, []).append(scores)

    def lost(self, name: str, reason: str) -> None:
        self.events.append(("lost", name))
        self.loss_reasons.append(reason)

    def stranded(self) -> None:
        self.events.append(("stranded", ""))

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        self.events.append(("again" if again else outcome.status, name))
        self.outcomes.setdefault(name, []).append(outcome)


def finish_immediately(name: str, report: ReportFunction) -> StageOutcome:
    """Finish without any work."""
    return StageOutcome(status="done")
