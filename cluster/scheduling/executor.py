"""A graph of stages as one Ray Tune run: a searcher hands out what is ready, actors are reused."""

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
from cluster.nodes import ALL, AdmittedNodes, Node, apart, enter
from cluster.protocol import LOST_PROCESSES, Listener, QueuedStage, Share, Source, StageOutcome, Work
from cluster.scheduling import tune_patches
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import Queue
from cluster.scheduling.tune_adapter import QueueSearcher, Relay, Stopper
from cluster.scratch import scratch_folder

# Tune would show the traceback of a lost process, which is handed out again, and warn of each trial that it finds
# no result file, which the store has. What stops a run is raised.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
MOST = 100_000
"""Trials that Tune may hold at once, which it is told but once; how many it gets is up to the slots."""


def execute(
    items: Iterable[QueuedStage],
    work: Work,
    listener: Listener,
    *,
    capacity: Capacity,
    share: Share,
    admission: AdmittedNodes = ALL,
    done: Iterable[str] = (),
    may_start: Callable[[str], bool] = lambda _: True,
    gpus: Callable[[str], float] | None = None,
    source: Source | None = None,
) -> Queue:
    """Run all items but those that are done, and what the source brings, and return the settled queue.

    `may_start` false: ask again later. `gpus` is asked for those of each item that is handed out, in place of the
    share's; `may_start` then keeps within what there is.
    """
    queue = Queue(items, done=done)
    places = share if gpus is None else replace(share, gpus=0.0)
    slots = Slots(places, capacity, admission.without, spare=gpus is None and share.workers == 1)
    searcher = QueueSearcher(queue, listener, may_start, gpus, share, source, slots)
    if queue.finished and not searcher.refilled():
        return queue
    shared = ray.put(_Shared(work, admission))

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        # A trial of several workers only waits, on the head, which need not see anything.
        selector = apart(config["without"]) if share.workers == 1 else None
        where = {"bundle_label_selector": [selector]} if selector else {}
        return tune.PlacementGroupFactory([replace(share, gpus=config["gpus"]).bundle], **where)

    trainable = tune.with_resources(functools.partial(_trial, shared=[shared], asked=share.workers == 1), resources)
    with scratch_folder() as scratch, tune_patches.adapted(here=not capacity.joined):
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                scheduler=Stopper(searcher),
                max_concurrent_trials=MOST,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
                callbacks=[Relay(searcher)],
            ),
        )
        _fit(tuner, searcher)
    return queue


def _fit(tuner: tune.Tuner, searcher: QueueSearcher) -> None:
    """Run to the end. Raises what broke the searcher as it was: Tune wraps it, or ends as if nothing had been."""
    try:
        tuner.fit()
    except Exception:
        if searcher.broken is None:
            raise
    if searcher.broken is not None:
        raise searcher.broken


@dataclass(frozen=True)
class _Shared:
    """What every process gets once."""

    work: Work
    admission: AdmittedNodes

    @functools.cached_property
    def node(self) -> Node:
        """Return the node of this process, asked once."""
        return self.admission.here()


@functools.lru_cache(maxsize=1)
def _fetched(shared: ray.ObjectRef) -> _Shared:
    """Unpack it once a process, not once a trial."""
    return ray.get(shared)  # type: ignore[no-any-return]


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """Return the one thread of this process in which stages run.

    Tune starts a thread a trial, and the allocator keeps a heap for each: memory would grow from stage to stage.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")


def _trial(config: dict[str, Any], shared: list[ray.ObjectRef], asked: bool) -> None:
    """Run one item. Errors are reported, not raised: the process stays warm for the next one.

    `asked`: whether this node has to see what the work needs.
    """
    try:
        common = _fetched(shared[0])
        enter(common.admission.but(config["without"]))
        if asked and common.node.fault:
            outcome = StageOutcome(status="rejected", detail=common.node.text, nodes=(common.node.id,))
        else:
            work, report = config["work"] or common.work, lambda scores: tune.report({"scores": dict(scores)})
            outcome = _thread().submit(work, config["id"], report).result()
    except Exception as error:  # noqa: BLE001 - whatever a stage raises fails that stage alone
        where = traceback.format_exc()
        outcome = StageOutcome(status="failed", detail=f"{type(error).__name__}: {error}\n{where}")
    tune.report(asdict(outcome))
