"""Run a graph of stages on a cluster. Worker processes are reused from one stage to the next."""

import functools
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import ray

from cluster.connect import Capacity
from cluster.nodes import ALL_NODES, AdmittedNodes, Node, set_admission
from cluster.protocol import Listener, QueuedStage, ReportFunction, StageOutcome, StageResources, StageSource, Work
from cluster.scheduling.capacity import Slots
from cluster.scheduling.dispatcher import StageDispatcher, TrialConfig
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_adapter import run_trials


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
    dispatcher = StageDispatcher(queue, listener, slots, resources, may_start=may_start, gpus=gpus, source=source)
    if not queue.finished or dispatcher.refill():
        context = ray.put(_SharedContext(work, admission))
        stage_function = _StageRunner(context, check_node=resources.workers == 1)
        run_trials(stage_function, dispatcher, resources, one_environment=not capacity.joined)
    return queue


@dataclass(frozen=True)
class _SharedContext:
    """What every worker process receives once."""

    work: Work
    admission: AdmittedNodes

    @functools.cached_property
    def node(self) -> Node:
        """Return the node of this process, checked once."""
        return self.admission.check_this_node()


@dataclass(frozen=True)
class _StageRunner:
    """Runs one stage in a worker process.

    Args:
        check_node: Whether this node must pass the check.
    """

    context: "ray.ObjectRef[_SharedContext]"
    check_node: bool

    def __call__(self, config: TrialConfig, report: ReportFunction) -> StageOutcome:
        """Return how the stage ended. Errors are returned, not raised, so that the process is reused."""
        try:
            context = _load_context(self.context)
            set_admission(context.admission.excluding(config["excluded_nodes"]))
            if self.check_node and context.node.fault:
                return StageOutcome(status="rejected", detail=context.node.text, nodes=(context.node.id,))
            return _stage_thread().submit(config["work"] or context.work, config["id"], report).result()
        except Exception as error:  # noqa: BLE001 - an exception fails this stage only
            trace = traceback.format_exc()
            return StageOutcome(status="failed", detail=f"{type(error).__name__}: {error}\n{trace}")


@functools.lru_cache(maxsize=1)
def _load_context(reference: "ray.ObjectRef[_SharedContext]") -> _SharedContext:
    """Fetch the context once a process, not once a trial."""
    return ray.get(reference)  # type: ignore[no-any-return]


@functools.cache
def _stage_thread() -> ThreadPoolExecutor:
    """Return the thread of this process that runs all its stages.

    Tune starts a new thread for each trial, and the allocator keeps a heap for each thread, so memory would grow.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")
