"""Records of finished stages, a limited sample of each kind, from which planned stages are estimated."""

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from typing import Any

from study.config.stages import SELF_SUPERVISED_TASKS
from study.planning.graph import Plan, PlannedStage, pool_of_stage
from study.planning.stage_identity import StageIdentity
from study.store.damage import DamagedStageError
from study.store.paths import RECORD
from study.store.store import Store

RECORDS_PER_KIND = 5
"""Records of each kind to read among the stages of the plan; they are taken in order of digests, thus at random."""
MAX_OTHER_STAGES = 200
"""Stages of other plans to read; their kind is unknown before that."""

Record = Mapping[str, Any]
KindOf = Callable[[Record], Hashable]


def planned_kind_of(kind_of: KindOf, plan: Plan) -> Callable[[PlannedStage], Hashable]:
    """Return a function from a planned stage to the kind that its record will have."""

    @functools.cache
    def of_identity(identity: StageIdentity, unlabelled: int | None) -> Hashable:
        step = identity.step
        return kind_of({
            "architecture": step.architecture,
            "backbone": step.backbone,
            "settings": step.settings.model_dump(mode="json", by_alias=True),
            "image": step.image.model_dump(mode="json"),
            "link": step.link.model_dump(mode="json"),
            "data": {"unlabelled": unlabelled},
        })  # fmt: skip

    def of_stage(node: PlannedStage) -> Hashable:
        if node.selection.unlabelled is None:
            return of_identity(node.identity, None)
        rows = plan.views[node.selection.data].stage_rows(node.selection)
        return of_identity(node.identity, len(pool_of_stage(rows, node.step)))

    return of_stage


def sample_records(
    plan: Plan, store: Store, kind_of: KindOf, kinds: Collection[Hashable]
) -> dict[Hashable, dict[str, Record]]:
    """Return the records of some finished stages of these kinds, by kind and digest."""
    if not kinds:
        return {}
    kind_of_node, finished = planned_kind_of(kind_of, plan), store.finished()
    counts, digests = Counter[Hashable](), list[str]()
    for digest in sorted(finished & (plan.nodes.keys() | plan.candidates.keys())):
        kind = kind_of_node(plan.node(digest))
        if kind in kinds and counts[kind] < RECORDS_PER_KIND:
            counts[kind] += 1
            digests.append(digest)
    if len(counts) < len(set(kinds)):
        digests += sorted(finished - plan.nodes.keys() - plan.candidates.keys())[:MAX_OTHER_STAGES]
    store.prefetch((digest, RECORD) for digest in digests)
    records: dict[Hashable, dict[str, Record]] = defaultdict(dict)
    for digest in digests:
        record = read_record(store, digest)
        with suppress(LookupError, TypeError):  # damaged, or from a version without these keys
            if (kind := kind_of(record)) in kinds:
                records[kind][digest] = record
    return records


def stage_warnings(store: Store, tasks: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the warnings of finished stages by digest; `tasks` are the tasks of stages by digest."""
    digests = [digest for digest, task in tasks.items() if task in SELF_SUPERVISED_TASKS]
    records = {digest: read_record(store, digest) for digest in digests}
    return {digest: record["warnings"] for digest, record in records.items() if record.get("warnings")}


def read_record(store: Store, digest: str) -> Record:
    """Return the record of a finished stage, empty if it is damaged: the next run repairs it."""
    try:
        return store.record(digest)
    except DamagedStageError:
        return {}
