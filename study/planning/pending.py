"""What of a plan is left to do, given what the store has."""

from dataclasses import dataclass

from results.metrics.thresholds import on_grid
from study.planning.graph import Plan, Scoring
from study.store.damage import DamagedStageError
from study.store.paths import SEAL
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class PendingStages:
    """Digests of the plan: `stages` to run, parents first, and `finished` ones that need nothing.

    `again` are stages to run whose weights were not kept and are needed after all, `scored` those that are
    trained and only scored once more.
    """

    stages: tuple[str, ...]
    finished: frozenset[str]
    again: frozenset[str]
    scored: frozenset[str]


def pending_stages(plan: Plan, store: Store) -> PendingStages:
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
            or (
                digest not in wanted
                and all(rescoring_source(store, digest, scoring) is not None for scoring in unscored)
            )
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
    return PendingStages(
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
            except DamagedStageError as error:
                store.set_aside(error)
                damaged[digest] = f"{damaged[digest]}; {error.what}" if digest in damaged else error.short
    return damaged


def rescoring_source(store: Store, digest: str, scoring: Scoring) -> str | None:
    """Return the key of scores at another threshold that these follow from, None where a network is needed."""
    follows = scoring.class_threshold is None and on_grid(scoring.threshold)
    return store.other_threshold(digest, scoring.examined) if follows else None
