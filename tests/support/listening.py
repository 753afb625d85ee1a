"""A listener that does nothing with what it hears."""

from collections.abc import Mapping

from cluster.protocol import StageOutcome


class StoreUnavailable:
    """Hears everything and keeps nothing."""

    def started(self, name: str) -> None:
        """Hear a start."""

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Hear a report."""

    def lost(self, name: str, reason: str) -> None:
        """Hear of a loss."""

    def stranded(self) -> None:
        """Hear that nothing has room."""

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """Hear an end."""
