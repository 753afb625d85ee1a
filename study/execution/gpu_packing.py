"""GPU sharing by measured memory (`resources: {pack: true}`): stages of one shape need equal shares."""

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from cluster.protocol import Listener, StageOutcome
from study.monitoring.gpu_memory import SHARE_STEP, WHOLE_GPU, gpu_share, known_shares, shape_of
from study.monitoring.stage_records import planned_kind_of, read_record
from study.planning.graph import Plan
from study.store.store import Store

if TYPE_CHECKING:
    from cluster.scheduling.capacity import Slots  # imports Ray, which planning does not need


class Packing(Listener):
    """Decide when a stage may start and with which share of a GPU.

    The first stage of a shape gets an entire GPU; other stages of this shape wait until its memory is measured.

    Args:
        plan: the plan.
        store: where records of finished stages are read.
        slots: slots of one entire GPU each.
    """

    def __init__(self, plan: Plan, store: Store, *, slots: "Slots") -> None:
        self._plan, self._store, self._slots = plan, store, slots
        self._shape = planned_kind_of(shape_of, plan)
        shapes = {self._shape(node) for node in plan.nodes.values()}
        self._shares = known_shares(plan, store, shapes)
        self._measured: dict[Hashable, str] = {}
        """Running stages that measure the memory of their shape, by shape."""
        self._taken: dict[str, float] = {}
        self._failed: set[str] = set()

    def may_start(self, digest: str) -> bool:
        """Return whether the memory of the shape is not being measured, and the GPUs have room for the stage."""
        taken = math.fsum(self._taken.values()) + self._share(digest)
        return self._shape_of(digest) not in self._measured and taken <= self._slots.max_running() + SHARE_STEP / 2

    def take(self, digest: str) -> float:
        """Reserve and return the share of a GPU for a stage that starts now; the first one of its shape is measured."""
        self._taken[digest] = self._share(digest)
        if self._shape_of(digest) not in self._shares:
            self._measured[self._shape_of(digest)] = digest
        return self._taken[digest]

    def ended(self, digest: str, outcome: StageOutcome, *, again: bool) -> None:
        """Release the share, record the measured memory and exclude rejected nodes."""
        for node in outcome.nodes:
            self._slots.exclude(node)
        shape = self._shape_of(digest)
        self._taken.pop(digest, None)
        if self._measured.get(shape) == digest:
            del self._measured[shape]
        if outcome.status == "done":
            memory = read_record(self._store, digest).get("gpu_memory")
            self._shares[shape] = max(gpu_share(memory) if memory else WHOLE_GPU, self._shares.get(shape, 0.0))
        elif outcome.status == "failed":
            self._failed.add(digest)

    def _share(self, digest: str) -> float:
        """Return the share that a stage needs; a failed one may have run out of memory and gets an entire GPU."""
        return WHOLE_GPU if digest in self._failed else self._shares.get(self._shape_of(digest), WHOLE_GPU)

    def _shape_of(self, digest: str) -> Hashable:
        return self._shape(self._plan.node(digest))
