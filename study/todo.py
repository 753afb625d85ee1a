"""What of a plan is left to do, given what the store has."""

from dataclasses import dataclass

from study.damaged import Damaged
from study.layout import SEAL
from study.plan import Plan
from study.rescore import can_rescore
from study.store import Store


@dataclass(frozen=True, kw_only=True)
class Todo:
    """Digests of the plan: `stages` to run, parents first, and `finished` ones that need nothing.

    `again` are stages to run whose weights were not kept and are needed after all, `scored` those that are
    trained and only scored once more.
    """

    stages: tuple[str, ...]
    finished: frozenset[str]
    again: frozenset[str]
    scored: frozenset[str]


def todo(plan: Plan, store: Store) -> Todo:
    """List what must be trained or scored. A parent is needed only where a stage to be trained starts from it."""
    published = store.finished() & plan.nodes.keys()
    wanted: set[str] = set()  # digests whose weights a child will read
    stages: list[str] = []
    again: set[str] = set()
    scored: set[str] = set()
    for digest in reversed(plan.nodes):
        unscored = [
            scoring
            for key, scoring in plan.scorings.get(digest, {}).items()
            if digest not in published or not store.scored(digest, key)
        ]
        if not unscored and digest not in wanted:
            continue
        trained = digest in published and (
            store.has_weights(digest)
            or (digest not in wanted and all(can_rescore(store, digest, scoring) for scoring in unscored))
        )
        if trained and not unscored:
            continue
        stages.append(digest)
        parent = plan.nodes[digest].parent
        if not trained and parent is not None:
            wanted.add(parent)
        if trained:
            scored.add(digest)
        elif digest in published:
            again.add(digest)
    return Todo(
        stages=tuple(reversed(stages)),
        finished=published - set(stages),
        again=frozenset(again),
        scored=frozenset(scored),
    )


def set_damaged_aside(plan: Plan, store: Store, *, every_byte: bool = False) -> dict[str, str]:
    """Verify every published stage of the plan; move what is damaged out of the way and say what it was, by digest.

    With `every_byte` all files but the weights are read; without, those whose size or time differs.
    """
    damaged: dict[str, str] = {}
    published = store.finished() & plan.nodes.keys()
    store.bring((digest, SEAL) for digest in published)
    for digest in published:
        while store.is_finished(digest):
            try:
                store.verify(digest, every_byte=every_byte)
                break
            except Damaged as error:
                store.set_aside(error)
                damaged[digest] = f"{damaged[digest]}; {error.what}" if digest in damaged else error.short
    return damaged
