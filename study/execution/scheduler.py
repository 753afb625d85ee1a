"""Running on a cluster what is left of a plan: brings Ray, so it is imported where something is left."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster
from cluster.nodes import ALL, AdmittedNodes, checked
from cluster.protocol import Listener, QueuedStage, Share
from cluster.scheduling.capacity import Slots
from cluster.scheduling.executor import execute
from cluster.scheduling.stage_queue import Queue
from study.errors import ConfigError, Problem
from study.execution.gpu_packing import Packing
from study.execution.node_check import node_check
from study.execution.worker import Worker
from study.monitoring.display import Display
from study.monitoring.plan_summary import write_plan
from study.monitoring.tracking import tracked
from study.planning.graph import Plan, image_epochs
from study.planning.pending import PendingStages, pending_stages
from study.planning.pretrained import pretrained_weights
from study.store.lease import is_leased
from study.store.pretrained import keep
from study.store.retry import patiently
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job

if TYPE_CHECKING:
    from study.search.controller import Driver

HELD_SECONDS = 1.0
"""Until a stage that another process holds is asked about again."""
CHECK_SECONDS = 3600.0
"""For a node to read data that it sees for the first time."""


def execute_pending(
    plan: Plan, left: PendingStages, store: Store, cache: Path, cluster: str | LocalCluster, display: Display
) -> Queue:
    """Run what is left of a plan, and what a search brings, on the cluster at an address, or on this machine's own."""
    spec = plan.spec
    # Finished ancestors go along: one that turns out damaged, or without weights by then, is trained again.
    lineage = _with_ancestors(plan, left.stages)
    jobs = {
        digest: stage_job(plan, plan.nodes[digest], needs_weights=digest in left.again or digest not in left.stages)
        for digest in lineage
    }
    with connected(cluster) as whole:
        admission = _admission(plan, store, cache, display) if whole.joined else ALL
        capacity = whole.now(admission.without)
        gpus = _gpus(plan, capacity)
        if whole.joined and spec.resources.gpus == "auto" and not gpus:
            display.line("no node has a GPU now, so resources.gpus auto takes none; set it to 1 where some join later")
        _refuse_too_small(plan, capacity, gpus)
        runtime = RuntimeContext(
            storage=store.root, origin=store.origin, cache=cache, checkpoint=spec.checkpoint,
            cpus=spec.resources.cpus, gpus=gpus, workers=spec.resources.workers, compiles=spec.resources.compile,
        )  # fmt: skip
        worker = Worker(jobs, runtime)
        if whole.joined or store.mirror is not None:
            keep(store, pretrained_weights(plan, left, store))
        source = _source(plan, store, worker, display)
        with display, tracked(display, plan, store) as listener:
            packing = _packing(plan, store, listener, capacity, admission) if spec.resources.pack and gpus else None
            elsewhere = _Elsewhere(store, display)
            queue = execute(
                [_item(plan, digest) for digest in lineage],
                worker,
                packing or listener,
                capacity=capacity,
                share=Share(cpus=spec.resources.cpus, gpus=gpus, workers=spec.resources.workers),
                admission=admission,
                done=lineage.keys() - set(left.stages),
                may_start=lambda digest: (packing is None or packing.may_start(digest)) and not elsewhere(digest),
                gpus=packing.take if packing is not None else None,
                source=source,
            )
            if source is not None:
                source.draw()
        write_plan(plan, store)
        return queue


class _Elsewhere:
    """Whether another process holds a stage; of one that is held, asked again after a while."""

    def __init__(self, store: Store, display: Display) -> None:
        self._store, self._display = store, display
        self._held: dict[str, float] = {}

    def __call__(self, digest: str) -> bool:
        if time.monotonic() - self._held.get(digest, float("-inf")) < HELD_SECONDS:
            return True
        held = is_leased(self._store.work(digest), self._store.mirror)
        if held:
            if not self._held:
                label = self._display.label(digest)
                self._display.line(f"{label}: a process of another driver, or one lost a moment ago, holds it; waiting")
            self._held[digest] = time.monotonic()
        return held


def _admission(plan: Plan, store: Store, cache: Path, display: Display) -> AdmittedNodes:
    """Ask the nodes whether they see this study's data and storage. Raises `ConfigError` where all are at fault.

    Where none has processors yet, as on a cluster that grows with the work, each is asked when it joins.
    """
    check = node_check(plan, store, cache)
    display.line("asking the nodes of the cluster whether they see the data and the storage")
    nodes = checked(check, seconds=CHECK_SECONDS)
    out = [node for node in nodes if node.fault]
    for node in out:
        display.line(node.text)
    if out and len(out) == len(nodes):
        why = f"each {out[0].fault}, or the like"
        message = f"no node of the cluster can work on it: {why}; allowed: paths that every node sees; name such paths"
        raise ConfigError([Problem(path="data", message=message)], plan.file)
    return AdmittedNodes.of(check, nodes)


def _source(plan: Plan, store: Store, worker: Worker, display: Display) -> "Driver | None":
    """Return where candidates, and what is compared after a search, come from."""
    if plan.searches is None:
        return None
    from study.search.controller import Driver

    def items(digests: Iterable[str], candidates: bool) -> tuple[list[QueuedStage], set[str]]:
        lineage = _with_ancestors(plan, digests)
        finished = {name for name in lineage if store.is_finished(name)}
        usable = {name for name in finished if store.has_weights(name)}
        wanted = set(lineage) - usable if candidates else set(digests)
        display.expect(wanted)
        made = [_late_item(plan, name, worker, again=name in finished - usable) for name in lineage]
        return made, set(lineage) - wanted

    def compared() -> Iterable[str]:
        patiently(lambda: write_plan(plan, store))
        return pending_stages(plan, store).stages

    return Driver(plan.searches, store, items=items, compared=compared, say=display.line)


def _late_item(plan: Plan, digest: str, worker: Worker, *, again: bool) -> QueuedStage:
    """Return an item that brings its own job; a candidate is not tried twice where it fails."""
    job = stage_job(plan, plan.node(digest), needs_weights=again)
    candidate = digest not in plan.nodes
    work = replace(worker, jobs={digest: job}, candidate=candidate)
    return replace(_item(plan, digest), work=work, retries=0 if candidate else None)


def _with_ancestors(plan: Plan, stages: Iterable[str]) -> dict[str, None]:
    """Return stages and all they descend from, each once."""
    lineage: dict[str, None] = {}
    for digest in stages:
        at: str | None = digest
        while at is not None and at not in lineage:
            lineage[at] = None
            at = plan.node(at).parent
    return lineage


def _refuse_too_small(plan: Plan, capacity: Capacity, gpus: float) -> None:
    """Refuse what this machine can never start; a cluster that is joined may grow."""
    workers = plan.spec.resources.workers
    wanted = {"cpus": (plan.spec.resources.cpus, capacity.cpus), "gpus": (gpus, capacity.gpus)}
    problems = [
        Problem(
            path=f"resources.{name}",
            message=f"is {asked:g}{f' for each of {workers} workers' if workers > 1 else ''} and this machine has "
            f"{there:g}; allowed: at most what there is; lower it, or name a larger cluster with --address",
        )
        for name, (asked, there) in wanted.items()
        if asked * workers > there
    ]
    if problems and not capacity.joined:
        raise ConfigError(problems, plan.file)


def _item(plan: Plan, digest: str) -> QueuedStage:
    node = plan.node(digest)
    needs = (node.parent,) if node.parent else ()
    return QueuedStage(id=digest, needs=needs, cost=image_epochs(plan, node))


def _packing(plan: Plan, store: Store, listener: Listener, capacity: Capacity, admission: AdmittedNodes) -> Packing:
    whole = Share(cpus=plan.spec.resources.cpus, gpus=1.0)
    return Packing(listener, plan, store, slots=Slots(whole, capacity, admission.without, spare=False))


def _gpus(plan: Plan, capacity: Capacity) -> float:
    gpus = plan.spec.resources.gpus
    return min(1.0, capacity.gpus) if gpus == "auto" else float(gpus)
