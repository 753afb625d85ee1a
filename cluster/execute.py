"""A graph of stages as one Ray Tune run: a searcher hands out what is ready, actors are reused."""

import functools
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.allocator import keep_freed
from cluster.connect import Capacity
from cluster.nodes import ALL, Admission, Node, apart, enter
from cluster.queue import Item, Queue
from cluster.scratch import scratch_folder
from cluster.slots import Slots
from cluster.work import LOST_PROCESSES, Listener, Outcome, Share, Source, Work

# Tune would show the traceback of a lost process, which is handed out again, and warn of each trial that it finds
# no result file, which the store has. What stops a run is raised.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
MOST = 100_000
"""Trials that Tune may hold at once, which it is told but once; how many it gets is up to the slots."""


def execute(
    items: Iterable[Item],
    work: Work,
    listener: Listener,
    *,
    capacity: Capacity,
    share: Share,
    admission: Admission = ALL,
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
    searcher = _QueueSearcher(queue, listener, may_start, gpus, share, source, slots)
    if queue.finished and not searcher.refilled():
        return queue
    shared = ray.put(_Shared(work, admission))

    def resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        # A trial of several workers only waits, on the head, which need not see anything.
        selector = apart(config["without"]) if share.workers == 1 else None
        where = {"bundle_label_selector": [selector]} if selector else {}
        return tune.PlacementGroupFactory([replace(share, gpus=config["gpus"]).bundle], **where)

    trainable = tune.with_resources(functools.partial(_trial, shared=[shared], asked=share.workers == 1), resources)
    with scratch_folder() as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                scheduler=_Stopper(searcher),
                max_concurrent_trials=MOST,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=LOST_PROCESSES),
                callbacks=[_Relay(searcher)],
            ),
        )
        tuner.fit()
    return queue


@dataclass(frozen=True)
class _Shared:
    """What every process gets once."""

    work: Work
    admission: Admission

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
    keep_freed()
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")


def _trial(config: dict[str, Any], shared: list[ray.ObjectRef], asked: bool) -> None:
    """Run one item. Errors are reported, not raised: the process stays warm for the next one.

    `asked`: whether this node has to see what the work needs.
    """
    try:
        common = _fetched(shared[0])
        enter(common.admission.but(config["without"]))
        if asked and common.node.fault:
            outcome = Outcome(status="unfit", detail=common.node.text, nodes=(common.node.id,))
        else:
            work, report = config["work"] or common.work, lambda scores: tune.report({"scores": dict(scores)})
            outcome = _thread().submit(work, config["id"], report).result()
    except Exception as error:  # noqa: BLE001 - whatever a stage raises fails that stage alone
        where = traceback.format_exc()
        outcome = Outcome(status="failed", detail=f"{type(error).__name__}: {error}\n{where}")
    tune.report(asdict(outcome))


class _QueueSearcher(Searcher):
    """Tune's view of the queue."""

    def __init__(
        self,
        queue: Queue,
        listener: Listener,
        may_start: Callable[[str], bool],
        gpus: Callable[[str], float] | None,
        share: Share,
        source: Source | None,
        slots: Slots,
    ) -> None:
        super().__init__()
        self.queue, self.listener, self._may_start, self._gpus = queue, listener, may_start, gpus
        self._share, self._source, self._slots = share, source, slots
        self._names: dict[str, str] = {}
        self._met: dict[str, int] = {}
        """How often an item met a node that is unfit."""
        self._begun: set[str] = set()
        self._stopped: set[str] = set()
        self._told: set[str] = set()

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say that the number of trials is kept here."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Hand out an item; None while all wait."""
        if len(self._names) >= self._slots.most():
            return None
        name = self._startable()
        while name is None and self.refilled():
            name = self._startable()
        if name is None:
            return str(Searcher.FINISHED) if self.queue.finished else None
        self._names[trial_id] = name
        # Of shares of GPUs only Ray knows which find a place.
        if self._gpus is None and len(self._names) <= self._slots.fit():
            self.began(trial_id)
        return {
            "id": name,
            "work": self.queue.item(name).work,
            "gpus": self._share.gpus if self._gpus is None else self._gpus(name),
            "without": sorted(self._slots.without),
        }

    def refilled(self) -> bool:
        """Ask the source for items; return whether there are any."""
        if self._source is None:
            return False
        items, done = self._source.more(self._slots.fit())
        found = list(items)
        self.queue.add(found, done=done)
        self._tell_skipped()
        return bool(found)

    def _startable(self) -> str | None:
        held: list[str] = []
        while (name := self.queue.next()) is not None and not self._may_start(name):
            held.append(name)
        for other in held:
            self.queue.put_back(other)
        return name

    def stops(self, trial_id: str, scores: Mapping[str, float]) -> bool:
        """Ask the source whether a running item is to be stopped."""
        if self._source is None or not self._source.reported(self._names[trial_id], scores):
            return False
        self._stopped.add(trial_id)
        return True

    def began(self, trial_id: str) -> None:
        """Relay once that an item has its place."""
        if trial_id not in self._begun:
            self._begun.add(trial_id)
            self.listener.started(self._names[trial_id])

    def progressed(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Relay a report of a running item."""
        if "scores" in result:
            self.listener.progressed(self._names[trial_id], result["scores"])

    def lost(self, trial_id: str) -> None:
        """Relay that a process was lost; Tune starts the trial again."""
        self.listener.lost(self._names[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle an item by the outcome its work reported."""
        if trial_id not in self._names:
            return
        self.began(trial_id)  # also one that failed while it waited
        self._begun.discard(trial_id)
        name = self._names.pop(trial_id)
        if trial_id in self._stopped:
            outcome, again = Outcome(status="stopped"), False
            self.queue.abandon(name)
        elif error or result is None or "status" not in result:
            outcome = Outcome(status="failed", detail=f"its process was lost {LOST_PROCESSES + 1} times")
            again = self.queue.fail(name, outcome.detail, final=True)
        else:
            outcome = Outcome(**{field.name: result[field.name] for field in fields(Outcome)})
            if outcome.status == "unfit":
                outcome = self._left_out(name, outcome)
            again = self._settle(name, outcome)
        self.listener.ended(name, outcome, again=again)
        if self._source is not None and not again:
            self._source.ended(name, outcome)
            self._tell_skipped()

    def _left_out(self, name: str, outcome: Outcome) -> Outcome:
        """Leave nodes out; an item that met many fails, as where all that a cluster adds are blind."""
        self._met[name] = self._met.get(name, 0) + 1
        new = [self._slots.leave_out(node) for node in outcome.nodes]
        if self._met[name] > LOST_PROCESSES:
            return replace(outcome, status="failed", detail=f"{outcome.detail}; so were {LOST_PROCESSES} before it")
        return outcome if any(new) else replace(outcome, detail="")  # it was on its way there already

    def _tell_skipped(self) -> None:
        told, self._told = self._told, set(self.queue.skipped)
        for name in sorted(self._told - told):
            if self._source is not None:
                self._source.ended(name, Outcome(status="skipped"))

    def _settle(self, name: str, outcome: Outcome) -> bool:
        match outcome.status:
            case "done":
                self.queue.finish(name)
                return False
            case "busy" | "unfit":
                self.queue.put_back(name)
                return True
            case "redo":
                return self.queue.redo(outcome.redo, name, outcome.detail)
            case _:
                return self.queue.fail(name, outcome.detail, final=bool(outcome.nodes))

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that never happens; there is nothing in it to keep."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the store is the truth, Tune's files are scratch."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: resuming is planning again."""


class _Stopper(FIFOScheduler):
    """Ends a trial at its next report where the source says so; whatever else is the queue's."""

    def __init__(self, searcher: _QueueSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on one report; Tune gives it flattened."""
        scores = {key.removeprefix("scores/"): value for key, value in result.items() if key.startswith("scores/")}
        stops = bool(scores) and self._searcher.stops(trial.trial_id, scores)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class _Relay(tune.Callback):
    """Passes intermediate reports on; a searcher hears of them only with a metric set."""

    def __init__(self, searcher: _QueueSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """Relay one report."""
        self._searcher.progressed(trial.trial_id, result)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Relay a start."""
        self._searcher.began(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Relay a loss."""
        self._searcher.lost(trial.trial_id)
