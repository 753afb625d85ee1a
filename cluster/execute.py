"""A graph of stages as one Ray Tune run: a searcher hands out what is ready, actors are reused."""

import functools
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.connect import Capacity
from cluster.queue import Item, Queue
from cluster.scratch import scratch_folder

Report = Callable[[Mapping[str, float]], None]
# Tune would show the traceback of a lost process, which is handed out again, and warn of each trial that it finds
# no result file, which the store has. What stops a run is raised.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
LOST_PROCESSES = 10
"""How often a stage whose process or node is lost is handed out again."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an item ended. `busy`: another driver runs it. `redo`: what the item named left is unusable.

    `stopped`: its source had it stopped. `skipped`: it was never run, because what it needs failed.
    """

    status: Literal["done", "busy", "redo", "failed", "stopped", "skipped"]
    detail: str = ""
    redo: str = ""


Work = Callable[[str, Report], Outcome]


class Listener(Protocol):
    """Is told what happens, in the driver's process."""

    def started(self, name: str) -> None:
        """An item was handed out."""

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """A running item reported."""

    def lost(self, name: str) -> None:
        """Hear that the process of a running item was lost; the item is handed out again."""

    def ended(self, name: str, outcome: Outcome, *, again: bool) -> None:
        """An item ended; `again` where it will be handed out once more."""


class Source(Protocol):
    """Brings items that are not known from the start, and is told what became of any; in the driver's process."""

    def more(self, slots: int) -> tuple[Iterable[Item], Iterable[str]]:
        """Return new items and those ids of them that are done; asked where nothing is ready for one of the slots.

        No items: nothing now, and nothing ever where nothing runs any more.
        """

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        """Hear a report of a running item; return whether to stop it."""

    def ended(self, name: str, outcome: Outcome) -> None:
        """Hear how an item ended for good."""


def execute(
    items: Iterable[Item],
    work: Work,
    listener: Listener,
    *,
    capacity: Capacity,
    cpus: int,
    gpus: float,
    done: Iterable[str] = (),
    may_start: Callable[[str], bool] = lambda _: True,
    source: Source | None = None,
) -> Queue:
    """Run all items but those that are done, and what the source brings, and return the settled queue.

    `may_start` false: another driver runs it, ask again later.
    """
    queue = Queue(items, done=done)
    slots = _slots(capacity, cpus, gpus)
    searcher = _QueueSearcher(queue, listener, may_start, source, slots)
    if queue.finished and not searcher.refilled():
        return queue
    shared = ray.put(work)
    trainable = tune.with_resources(functools.partial(_trial, shared=[shared]), {"cpu": cpus, "gpu": gpus})
    with scratch_folder() as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                scheduler=_Stopper(searcher),
                max_concurrent_trials=slots,
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


def _slots(capacity: Capacity, cpus: int, gpus: float) -> int:
    by_cpu = int(capacity.cpus // cpus)
    return max(1, min(by_cpu, int(capacity.gpus // gpus)) if gpus else by_cpu)


@functools.lru_cache(maxsize=1)
def _fetched(shared: ray.ObjectRef) -> Work:
    """Unpack the work once a process, not once a trial."""
    return ray.get(shared)  # type: ignore[no-any-return]


@functools.cache
def _thread() -> ThreadPoolExecutor:
    """Return the one thread of this process in which stages run.

    Tune starts a thread a trial, and the allocator keeps a heap for each: memory would grow from stage to stage.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")


def _trial(config: dict[str, Any], shared: list[ray.ObjectRef]) -> None:
    """Run one item. Errors are reported, not raised: the process stays warm for the next one."""
    try:
        work = config["work"] or _fetched(shared[0])
        outcome = _thread().submit(work, config["id"], lambda scores: tune.report({"scores": dict(scores)})).result()
    except Exception as error:  # noqa: BLE001 - whatever a stage raises fails that stage alone
        where = traceback.format_exc()
        outcome = Outcome(status="failed", detail=f"{type(error).__name__}: {error}\n{where}")
    tune.report({"status": outcome.status, "detail": outcome.detail, "redo": outcome.redo})


class _QueueSearcher(Searcher):
    """Tune's view of the queue."""

    def __init__(
        self, queue: Queue, listener: Listener, may_start: Callable[[str], bool], source: Source | None, slots: int
    ) -> None:
        super().__init__()
        self.queue, self.listener, self._may_start = queue, listener, may_start
        self._source, self._slots = source, slots
        self._names: dict[str, str] = {}
        self._stopped: set[str] = set()
        self._told: set[str] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Hand out an item; None while all wait."""
        name = self._startable()
        while name is None and self.refilled():
            name = self._startable()
        if name is None:
            return str(Searcher.FINISHED) if self.queue.finished else None
        self._names[trial_id] = name
        self.listener.started(name)
        return {"id": name, "work": self.queue.item(name).work}

    def refilled(self) -> bool:
        """Ask the source for items; return whether there are any."""
        if self._source is None:
            return False
        items, done = self._source.more(self._slots)
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

    def progressed(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Relay a report of a running item."""
        if "scores" in result:
            self.listener.progressed(self._names[trial_id], result["scores"])

    def lost(self, trial_id: str) -> None:
        """Relay that a process was lost; Tune starts the trial again."""
        self.listener.lost(self._names[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle an item by the outcome its work reported."""
        name = self._names.pop(trial_id, None)
        if name is None:
            return
        if trial_id in self._stopped:
            outcome, again = Outcome(status="stopped"), False
            self.queue.abandon(name)
        elif error or result is None or "status" not in result:
            outcome = Outcome(status="failed", detail=f"its process was lost {LOST_PROCESSES + 1} times")
            again = self.queue.fail(name, outcome.detail, final=True)
        else:
            outcome = Outcome(status=result["status"], detail=result["detail"], redo=result["redo"])
            again = self._settle(name, outcome)
        self.listener.ended(name, outcome, again=again)
        if self._source is not None and not again:
            self._source.ended(name, outcome)
            self._tell_skipped()

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
            case "busy":
                self.queue.put_back(name)
                return True
            case "redo":
                return self.queue.redo(outcome.redo, name, outcome.detail)
            case _:
                return self.queue.fail(name, outcome.detail)

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

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Relay a loss."""
        self._searcher.lost(trial.trial_id)
