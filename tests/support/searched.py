"""A study with a search that trains in seconds, and a way to run it in this process, one stage after another."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cluster.protocol import StageOutcome
from cluster.scheduling.stage_queue import StageQueue
from study.config.document import with_paths
from study.execution.scheduler import _item, _source
from study.execution.worker import Worker
from study.monitoring.display import Display
from study.monitoring.plan_summary import write_plan
from study.monitoring.progress import StudyProgress
from study.monitoring.reporter import Reporter
from study.planning.graph import Plan, lineage
from study.planning.pending import pending_stages
from study.search.arm_search import ArmSearches
from study.search.load import load_study
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job

SEARCHED: dict[str, Any] = {
    "name": "searched",
    "data": {
        "clinic": {"source": "phantom", "images": 8, "patients": 8, "seed": 11, "style": "a", "size": 32},
        "hospital": {"source": "phantom", "images": 24, "patients": 24, "seed": 7, "style": "b", "size": 32},
    },
    "validation": {"min_cases": 1},
    "image": {"size": 32},
    "stages": {
        "classify": {"task": "classification", "data": "clinic", "epochs": 1},
        "segment": {"task": "segmentation", "data": "hospital", "epochs": 2, "batch_size": 4},
    },
    "pathways": {"none": ["segment"], "one_step": ["classify", "segment"]},
    "compare": {
        "architecture": ["unet"],
        "backbone": ["tu-lcnet_050"],
        "labelled_fraction": [0.3, 1.0],
        "folds": 2,
        "baseline": {"pathway": "none"},
    },
    "search": {
        "trials": 3,
        "reserve": 0.4,
        "space": {"target.optimizer.lr": {"loguniform": [1e-4, 1e-1]}},
    },
    "checkpoint": {"epochs": 1, "seconds": 0},
}  # fmt: skip


def searched(changes: Mapping[str, object] | None = None, **search: object) -> dict[str, Any]:
    """The document with dotted paths changed, and keys of its search."""
    document = with_paths(SEARCHED, changes or {})
    document["search"] = {**document["search"], **search}
    return document


def planned(document: dict[str, Any], storage: Path, cache: Path) -> Plan:
    return load_study(document, file="searched.yaml", cache=cache, storage=storage)[0]


def searches_of(document: dict[str, Any], storage: Path, cache: Path) -> ArmSearches:
    searches = load_study(document, file="searched.yaml", cache=cache, storage=storage)[1]
    assert searches is not None, "a study with a search"
    return searches


class Cut(Exception):  # noqa: N818 - no error
    """The driver was killed."""


def run_here(
    document: dict[str, Any], storage: Path, cache: Path, *, before: Callable[[str, int], None] = lambda *_: None
) -> ArmSearches:
    """Run a study without Ray. `before` receives the digest and epoch of each report, and may raise `Cut`."""
    torch.set_num_threads(1)
    searches, store = searches_of(document, storage, cache), Store(storage)
    plan = searches.plan
    around = RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=plan.spec.checkpoint)
    left = pending_stages(plan, store)
    write_plan(plan, store, searches)
    display = Display(StudyProgress(plan, left), Reporter(Console(quiet=True)))
    stages = lineage(plan.node, left.stages)
    worker = Worker({name: stage_job(plan, plan.nodes[name]) for name in stages}, around)
    queue = StageQueue([_item(plan, name) for name in stages], done=stages.keys() - set(left.stages))
    source = _source(plan, searches, store, worker, display)
    while True:
        name = queue.next()
        if name is None:
            items, done = source.next_stages(1)
            if not items:
                return searches
            queue.add(items, done=done)
            continue

        def report(scores: Mapping[str, float], name: str = name) -> None:
            before(name, int(scores["epoch"]))
            if source.reported(name, scores):
                raise SystemExit

        work, skipped = queue.stage(name).work or worker, set(queue.skipped)
        try:
            outcome = work(name, report)
        except SystemExit:
            queue.abandon(name)
            outcome = StageOutcome(status="stopped")
        except Cut:
            raise
        except Exception as error:  # noqa: BLE001 - as on the cluster
            outcome = StageOutcome(status="failed", detail=f"{type(error).__name__}: {error}")
            queue.fail(name, outcome.detail, final=True)
        if outcome.status == "done":
            queue.finish(name)
        source.ended(name, outcome)
        for child in queue.skipped - skipped:
            source.ended(child, StageOutcome(status="skipped"))
