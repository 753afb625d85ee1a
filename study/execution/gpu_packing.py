"""How many stages share a GPU: each takes what one of its shape took before (`resources: {pack: true}`)."""

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from cluster.protocol import Listener, StageOutcome
from study.monitoring.gpu_memory import STEP, WHOLE, known_shares, shape_of, share_of
from study.monitoring.stage_records import kinds_by, record_of
from study.planning.graph import Plan
from study.store.store import Store

if TYPE_CHECKING:
    from cluster.scheduling.capacity import Slots  # brings Ray, which planning does without


class Packing:
    """Passes on what a listener hears, and says who may start and with which share of a GPU; `slots` are whole ones.

    The first stage of a shape has a whole GPU; the others of its shape wait until it told its memory.
    """

    def __init__(self, listener: Listener, plan: Plan, store: Store, *, slots: "Slots") -> None:
        self._listener, self._plan, self._store, self._slots = listener, plan, store, slots
        self._shape = kinds_by(shape_of)
        shapes = {self._shape(node) for node in plan.nodes.values()}
        self._shares = known_shares(plan, store, shapes)
        self._measured: dict[Hashable, str] = {}
        """Stages that run to tell the memory of their shape."""
        self._taken: dict[str, float] = {}
        self._failed: set[str] = set()

    def may_start(self, name: str) -> bool:
        """Return whether a stage has to wait neither for its shape's memory to be told nor for room."""
        taken = math.fsum(self._taken.values()) + self._share(name)
        return self._shape_of(name) not in self._measured and taken <= self._slots.fit() + STEP / 2

    def take(self, name: str) -> float:
        """Return the share of a GPU for a stage that is handed out now; the first of its shape is measured."""
        self._taken[name] = self._share(name)
        if self._shape_of(name) not in self._shares:
            self._measured[self._shape_of(name)] = name
        return self._taken[name]

    def started(self, name: str) -> None:
        """Pass on."""
        self._listener.started(name)

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Pass on."""
        self._listener.progressed(name, scores)

    def lost(self, name: str, why: str) -> None:
        """Pass on; the stage is started again with what it has."""
        self._listener.lost(name, why)

    def stranded(self) -> None:
        """Pass on."""
        self._listener.stranded()

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """Give room back, and learn what the stage took and which nodes are left out."""
        for node in outcome.nodes:
            self._slots.leave_out(node)
        shape = self._shape_of(name)
        self._taken.pop(name, None)
        if self._measured.get(shape) == name:
            del self._measured[shape]
        if outcome.status == "done":
            memory = record_of(self._store, name).get("gpu_memory")
            self._shares[shape] = max(share_of(memory) if memory else WHOLE, self._shares.get(shape, 0.0))
        elif outcome.status == "failed":
            self._failed.add(name)
        self._listener.ended(name, outcome, again=again)

    def _share(self, name: str) -> float:
        """Return what a stage would take; one that failed may have lacked memory."""
        return WHOLE if name in self._failed else self._shares.get(self._shape_of(name), WHOLE)

    def _shape_of(self, name: str) -> Hashable:
        return self._shape(self._plan.node(name))
