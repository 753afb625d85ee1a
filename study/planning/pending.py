"""The pending stages of a plan, given the content of the store."""

from dataclasses import dataclass

from results.metrics.thresholds import on_grid
from study.planning.graph import Plan, Scoring
from study.store.damage import DamagedStageError
from study.store.paths import MANIFEST
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class PendingStages:
    """Digests of the pending `stages`, parents first, and of the `finished` ones.

    Of the pending stages, `again` are finished ones that must be retrained because their weights were not kept,
    and `scored` are trained ones that only need another evaluation.
    """

    stages: tuple[str, ...]
    finished: frozenset[str]
    again: frozenset[str]
    scored: frozenset[str]


def pending_stages(plan: Plan, store: Store) -> PendingStages:
    """Return the stages to train or evaluate. Weights of a stage are needed only if a stage to train reads them."""
    published = store.finished() & plan.nodes.keys()
    needed: set[str] = set()  # digests whose weights another stage reads
    stages: list[str] = []
    again: set[str] = set()
    scored: set[str] = set()
    for digest in reversed(tuple(plan.nodes)):
        unscored = [
            scoring
            for key, scoring in plan.scorings.get(digest, {}).items()
            if digest not in published or not store.scored(digest, key)
        ]
        if not unscored and digest not in needed:
            continue
        trained = digest in published and (
            store.has_weights(digest)
            or (
                digest not in needed
                and all(rescoring_source(store, digest, scoring) is not None for scoring in unscored)
            )
        )
        if trained and not unscored:
            continue
        stages.append(digest)
        if not trained:
            needed.update(plan.nodes[digest].needs)
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
    """Verify all published stages of the plan, move damaged ones aside, and return the damage by digest.

    With `every_byte` all files except weights are hashed, otherwise only those with another size or time.
    """
    damaged: dict[str, str] = {}
    published = store.finished() & plan.nodes.keys()
    store.prefetch((digest, MANIFEST) for digest in published)
    for digest in published:
        while store.is_finished(digest):
            try:
                store.verify(digest, every_byte=every_byte)
                break
            except DamagedStageError as error:
                store.set_aside(error)
                damaged[digest] = f"{damaged[digest]}; {error.problem}" if digest in damaged else error.short
    return damaged


def rescoring_source(store: Store, digest: str, scoring: Scoring) -> str | None:
    """Return the key of scores at another threshold from which a scoring can be derived; None if it needs a network.

    Metrics of shapes and post-processing need the predicted masks.
    """
    needs_masks = scoring.class_threshold is not None or scoring.shape is not None or bool(scoring.postprocess)
    derivable = not needs_masks and on_grid(scoring.threshold)
    return store.other_threshold(digest, scoring.evaluation) if derivable else None
