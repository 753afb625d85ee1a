"""Run a graph of stages as one Ray Tune run: a searcher suggests ready stages, and actors are reused."""

import functools
import logging
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray import tune

from cluster.connect import Capacity
from cluster.nodes import ALL_NODES, AdmittedNodes, Node, node_selector, set_admission
from cluster.protocol import LOST_PROCESSES, Listener, QueuedStage, StageOutcome, StageResources, StageSource, Work
from cluster.scheduling import tune_patches
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_adapter import QueueScheduler, QueueSearcher, ReportCallback
from cluster.scratch import scratch_folder

# Tune would log the traceback of every lost process, although the stage is retried, and warn about missing result
# files, which are in the store instead. Errors that end the run are raised.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
MAX_TRIALS = 100_000
"""Tune's limit of concurrent trials, which is fixed at the start; `Slots` sets the actual one."""


def execute(
    stages: Iterable[QueuedStage],
    work: Work,
    listener: Listener,
    *,
    capacity: Capacity,
    resources: StageResources,
    admission: AdmittedNodes = ALL_NODES,
    done: Iterable[str] = (),
    may_start: Callable[[str], bool] = lambda _: True,
    gpus: Callable[[str], float] | None = None,
    source: StageSource | None = None,
) -> StageQueue:
    """Run all stages that are not done, and those that the source adds; return the finished queue.

    Args:
        work: Runs a stage, given its id and a function to report scores.
        may_start: Whether a ready stage may start now; called again later if not.
        gpus: GPUs of each stage in place of `resources.gpus`; `may_start` then has to respect the capacity.
        source: Adds stages during the run.
    """
    queue = StageQueue(stages, done=done)
    slot_resources = resources if gpus is None else replace(resources, gpus=0.0)
    slots = Slots(slot_resources, capacity, admission.excluded, spare=gpus is None and resources.workers == 1)
    searcher = QueueSearcher(queue, listener, may_start, gpus, resources, source, slots)
    if queue.finished and not searcher.refill():
        return queue
    shared = ray.put(_WorkerContext(work, admission))

    def placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        # A trial with several workers only waits for them, on the head, which is not checked.
        selector = node_selector(config["excluded_nodes"]) if resources.workers == 1 else None
        options = {"bundle_label_selector": [selector]} if selector else {}
        return tune.PlacementGroupFactory([replace(resources, gpus=config["gpus"]).bundle], **options)

    trial = functools.partial(_trial, shared=[shared], check_node=resources.workers == 1)
    trainable = tune.with_resources(trial, placement)
    with scratch_folder() as scratch, tune_patches.patched_tune(one_environment=not capacity.joined):
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                scheduler=QueueScheduler(searcher),
                max_concurrent_trials=MAX_TRIALS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
                callbacks=[ReportCallback(searcher)],
            ),
        )
        _fit(tuner, searcher)
    return queue


def _fit(tuner: tune.Tuner, searcher: QueueSearcher) -> None:
    """Run to the end. Raises the searcher's first error itself: Tune would wrap it, or ignore it."""
    try:
        tuner.fit()
    except Exception:
        if searcher.broken is None:
            raise
    if searcher.broken is not None:
        raise searcher.broken


@dataclass(frozen=True)
class _WorkerContext:
    """What every worker process receives once."""

    work: Work
    admission: AdmittedNodes

    @functools.cached_property
    def node(self) -> Node:
        """Return the node of this process, checked once."""
        return self.admission.check_this_node()


@functools.lru_cache(maxsize=1)
def _load_shared(shared: ray.ObjectRef) -> _WorkerContext:
    """Fetch it once a process, not once a trial."""
    return ray.get(shared)  # type: ignore[no-any-return]


@functools.cache
def _stage_thread() -> ThreadPoolExecutor:
    """Return the thread of this process that runs all its stages.

    Tune starts a new thread for each trial, and the allocator keeps a heap for each thread, so memory would grow.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")


def _trial(config: dict[str, Any], shared: list[ray.ObjectRef], check_node: bool) -> None:
    """Run one stage. Errors are reported, not raised, so that the process is reused for the next stage.

    Args:
        check_node: Whether this node must pass the check.
    """
    try:
        context = _load_shared(shared[0])
        set_admission(context.admission.excluding(config["excluded_nodes"]))
        if check_node and context.node.fault:
            outcome = StageOutcome(status="rejected", detail=context.node.text, nodes=(context.node.id,))
        else:
            work, report = config["work"] or context.work, lambda scores: tune.report({"scores": dict(scores)})
            outcome = _stage_thread().submit(work, config["id"], report).result()
    except Exception as error:  # noqa: BLE001 - an exception fails this stage only
        trace = traceback.format_exc()
        outcome = StageOutcome(status="failed", detail=f"{type(error).__name__}: {error}\n{trace}")
    tune.report(asdict(outcome))
