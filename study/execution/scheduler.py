"""Run the pending stages of a plan on a cluster. Imports Ray, so it is imported only if stages are pending."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster
from cluster.nodes import ALL_NODES, AdmittedNodes, check_nodes
from cluster.protocol import Listeners, NewStages, QueuedStage, StageResources
from cluster.scheduling.capacity import Slots
from cluster.scheduling.executor import execute
from cluster.scheduling.stage_queue import StageQueue
from models.catalog.registry import published_weights
from study.errors import ConfigError, Problem
from study.execution.gpu_packing import Packing
from study.execution.node_check import node_check
from study.execution.study_folder import FailureLog
from study.execution.worker import Worker
from study.monitoring.display import Display
from study.monitoring.plan_summary import write_plan
from study.monitoring.tracking import open_tracking
from study.planning.graph import Plan, image_epochs, lineage
from study.planning.pending import PendingStages, pending_stages
from study.planning.pretrained import pretrained_weights, weights_of_stages
from study.store.pretrained import store_weights
from study.store.retry import retry_io
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearches
    from study.search.controller import SearchController

LEASE_CHECK_SECONDS = 1.0
"""Interval between checks of a stage that another process has leased."""
CHECK_SECONDS = 3600.0
"""Timeout of the node check, in which a node may have to index the data for the first time."""


def execute_pending(
    plan: Plan, pending: PendingStages, searches: "ArmSearches | None", *, store: Store, cache: Path,
    cluster: str | LocalCluster, display: Display,
) -> StageQueue:  # fmt: skip
    """Run the pending stages of a plan, and those of its searches, on the cluster at an address or a local one."""
    spec = plan.spec
    # Finished ancestors are included: one that is damaged or lost its weights is trained again.
    stages = lineage(plan.node, pending.stages)
    jobs = {
        digest: stage_job(
            plan, plan.nodes[digest], needs_weights=digest in pending.again or digest not in pending.stages
        )
        for digest in stages
    }
    with connected(cluster) as initial:
        admission = _admission(plan, store, cache, display) if initial.joined else ALL_NODES
        capacity = initial.refreshed(admission.excluded)
        gpus = _gpus(plan, capacity)
        if initial.joined and spec.resources.gpus == "auto" and not gpus:
            display.line("no node has a GPU now, so resources.gpus auto takes none; set it to 1 where some join later")
        _refuse_too_small(plan, capacity, gpus)
        runtime = RuntimeContext(
            storage=store.root, origin=store.origin, cache=cache, checkpoint=spec.checkpoint,
            cpus=spec.resources.cpus, gpus=gpus, workers=spec.resources.workers, compiles=spec.resources.compile,
            caches_features=spec.resources.cache_features,
        )  # fmt: skip
        worker = Worker(jobs, runtime)
        if initial.joined or store.origin is not None:
            _store_weights(plan, pending, stages, store)
        source = _source(plan, searches, store, worker, display) if searches is not None else None
        with display, open_tracking(plan, store, display.line) as tracking:
            packing = _packing(plan, store, capacity, admission) if spec.resources.pack and gpus else None
            listeners = [display.progress, display, FailureLog(plan, store), tracking]
            is_leased_elsewhere = _LeasedElsewhere(store, display)
            queue = execute(
                [_item(plan, digest) for digest in stages],
                worker,
                Listeners(listeners if packing is None else [*listeners, packing]),
                capacity=capacity,
                resources=StageResources(cpus=spec.resources.cpus, gpus=gpus, workers=spec.resources.workers),
                admission=admission,
                done=stages.keys() - set(pending.stages),
                may_start=lambda digest: (
                    (packing is None or packing.may_start(digest)) and not is_leased_elsewhere(digest)
                ),
                gpus=packing.take if packing is not None else None,
                source=source,
            )
            if source is not None:
                source.draw()
        write_plan(plan, store, searches)
        return queue


class _LeasedElsewhere:
    """Whether another process has leased a stage; leased stages are checked again after an interval."""

    def __init__(self, store: Store, display: Display) -> None:
        self._store, self._display = store, display
        self._checked_at: dict[str, float] = {}

    def __call__(self, digest: str) -> bool:
        if time.monotonic() - self._checked_at.get(digest, float("-inf")) < LEASE_CHECK_SECONDS:
            return True
        leased = self._store.is_leased(digest)
        if leased:
            if not self._checked_at:
                label = self._display.progress.label(digest)
                self._display.line(f"{label}: a process of another driver, or one lost a moment ago, holds it; waiting")
            self._checked_at[digest] = time.monotonic()
        return leased


def _admission(plan: Plan, store: Store, cache: Path, display: Display) -> AdmittedNodes:
    """Check that the nodes can access data and storage. Raises `ConfigError` if all nodes are rejected.

    If no node has CPUs yet, as on an autoscaling cluster, nodes are checked when they join.
    """
    check = node_check(plan, store, cache)
    display.line("checking that the nodes of the cluster can read the data and the storage")
    nodes = check_nodes(check, seconds=CHECK_SECONDS)
    rejected = [node for node in nodes if node.fault]
    for node in rejected:
        display.line(node.text)
    if rejected and len(rejected) == len(nodes):
        reason = f"each {rejected[0].fault}, or a similar problem"
        message = (
            f"no node of the cluster can work on it: {reason}; allowed: paths that every node sees; name such paths"
        )
        raise ConfigError([Problem(path="data", message=message)], plan.file)
    return AdmittedNodes.from_checks(check, nodes)


def _source(plan: Plan, searches: "ArmSearches", store: Store, worker: Worker, display: Display) -> "SearchController":
    """Return the source of candidates and of the stages that are compared after a search."""
    from study.search.controller import SearchController

    def new_stages(digests: Iterable[str], candidates: bool) -> NewStages:
        stages = lineage(plan.node, digests)
        finished = {digest for digest in stages if store.is_finished(digest)}
        usable = {digest for digest in finished if store.has_weights(digest)}
        pending = set(stages) - usable if candidates else set(digests)
        display.progress.expect(pending)
        items = [_added_item(plan, digest, worker, again=digest in finished - usable) for digest in stages]
        return NewStages(items, set(stages) - pending)

    def compared() -> Iterable[str]:
        retry_io(lambda: write_plan(plan, store, searches))
        return pending_stages(plan, store).stages

    return SearchController(searches, store, new_stages=new_stages, compared=compared, say=display.line)


def _added_item(plan: Plan, digest: str, worker: Worker, *, again: bool) -> QueuedStage:
    """Return a queue item with its own job; a failed candidate is not retried."""
    job = stage_job(plan, plan.node(digest), needs_weights=again)
    candidate = digest not in plan.nodes
    work = replace(worker, jobs={digest: job}, candidate=candidate)
    return replace(_item(plan, digest), work=work, retries=0 if candidate else None)


def _store_weights(plan: Plan, pending: PendingStages, stages: Iterable[str], store: Store) -> None:
    """Store the published weights that workers may need. Raises `ConfigError` if pending stages lack theirs."""
    from models.weights.initial import WeightsUnavailable

    needed = pretrained_weights(plan, pending, store)
    for name in [*needed, *(name for name in weights_of_stages(plan, stages) if name not in needed)]:
        weights = published_weights(*name)
        try:
            store_weights(store, {weights: plan.contents.get(weights)})
        except (WeightsUnavailable, ValueError) as error:
            if name in needed:  # a finished stage is trained again only if it is damaged
                raise ConfigError([Problem(path="", message=str(error))], plan.file) from error


def _refuse_too_small(plan: Plan, capacity: Capacity, gpus: float) -> None:
    """Raise `ConfigError` if stages need more than this machine has; an external cluster may grow."""
    workers = plan.spec.resources.workers
    resources = {"cpus": (plan.spec.resources.cpus, capacity.cpus), "gpus": (gpus, capacity.gpus)}
    problems = [
        Problem(
            path=f"resources.{name}",
            message=f"is {required:g}{f' for each of {workers} workers' if workers > 1 else ''} and this machine has "
            f"{available:g}; allowed: at most what there is; lower it, or name a larger cluster with --address",
        )
        for name, (required, available) in resources.items()
        if required * workers > available
    ]
    if problems and not capacity.joined:
        raise ConfigError(problems, plan.file)


def _item(plan: Plan, digest: str) -> QueuedStage:
    node = plan.node(digest)
    return QueuedStage(id=digest, needs=node.needs, cost=image_epochs(plan, node))


def _packing(plan: Plan, store: Store, capacity: Capacity, admission: AdmittedNodes) -> Packing:
    gpu_slot = StageResources(cpus=plan.spec.resources.cpus, gpus=1.0)
    return Packing(plan, store, slots=Slots(gpu_slot, capacity, admission.excluded, spare=False))


def _gpus(plan: Plan, capacity: Capacity) -> float:
    gpus = plan.spec.resources.gpus
    return min(1.0, capacity.gpus) if gpus == "auto" else float(gpus)
