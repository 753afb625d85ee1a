"""What finished stages of a storage tell of those to come: a few records of every kind, however many there are."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from typing import Any

from study.planning.graph import Plan, PlannedStage
from study.planning.recipe import StageIdentity
from study.store.damage import DamagedStageError
from study.store.paths import RECORD
from study.store.store import Store

FEW = 5
"""Records of one kind among the plan's own stages; which ones is as good as chance, by digest."""
OTHERS = 200
"""Stages that are not the plan's: their kind is only known once they are read."""

Record = Mapping[str, Any]
KindOf = Callable[[Record], Hashable]


def kinds_by(kind_of: KindOf) -> Callable[[PlannedStage], Hashable]:
    """Return what gives the kind that a planned stage's record will have."""

    @functools.cache
    def of_recipe(recipe: StageIdentity) -> Hashable:
        step = recipe.step
        return kind_of({
            "architecture": step.architecture,
            "backbone": step.backbone,
            "settings": step.settings.model_dump(mode="json", by_alias=True),
            "image": step.image.model_dump(mode="json"),
            "link": step.link.model_dump(mode="json"),
        })  # fmt: skip

    return lambda node: of_recipe(node.recipe)


def sampled(
    plan: Plan, store: Store, kind_of: KindOf, wanted: Collection[Hashable]
) -> dict[Hashable, dict[str, Record]]:
    """Return by wanted kind, then by digest, the records of some finished stages."""
    if not wanted:
        return {}
    kind_of_node, finished = kinds_by(kind_of), store.finished()
    own, taken = Counter[Hashable](), list[str]()
    for digest in sorted(finished & (plan.nodes.keys() | plan.candidates.keys())):
        kind = kind_of_node(plan.node(digest))
        if kind in wanted and own[kind] < FEW:
            own[kind] += 1
            taken.append(digest)
    if len(own) < len(set(wanted)):
        taken += sorted(finished - plan.nodes.keys() - plan.candidates.keys())[:OTHERS]
    store.bring((digest, RECORD) for digest in taken)
    found: dict[Hashable, dict[str, Record]] = defaultdict(dict)
    for digest in taken:
        record = record_of(store, digest)
        with suppress(LookupError, TypeError):  # damaged, or of an older version that lacks what tells its kind
            if (kind := kind_of(record)) in wanted:
                found[kind][digest] = record
    return found


def record_of(store: Store, digest: str) -> Record:
    """Return the record of a finished stage, empty where it is damaged: a run finds that and mends it."""
    try:
        return store.record(digest)
    except DamagedStageError:
        return {}
