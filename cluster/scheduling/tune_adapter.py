"""What Ray Tune asks of a queue: which trial is next, when one stops, and who hears of it."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.protocol import LOST_PROCESSES, Listener, Share, Source, StageOutcome
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import Queue
from cluster.scheduling.tune_patches import Shortage

P = ParamSpec("P")
T = TypeVar("T")


def _first_error(method: Callable[Concatenate["QueueSearcher", P], T]) -> Callable[Concatenate["QueueSearcher", P], T]:
    """Keep the first error of an answer to Tune, and answer nothing more after it."""

    @functools.wraps(method)
    def answer(self: "QueueSearcher", /, *given: P.args, **named: P.kwargs) -> T:
        if self.broken is not None:
            raise self.broken
        try:
            return method(self, *given, **named)
        except Exception as error:
            self.broken = error
            raise

    return answer


class QueueSearcher(Searcher):
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
        self._met: Counter[str] = Counter()
        """How often an item met a node that is unfit."""
        self._losses: Counter[str] = Counter()
        """How often the process of an item was lost."""
        self._why: dict[str, str] = {}
        """What is known of the last time."""
        self._begun: set[str] = set()
        self._stopped: set[str] = set()
        self._told: set[str] = set()
        self._stranded = False
        self.broken: Exception | None = None
        """What went wrong first where Tune asked: it would wrap that, or go on without."""

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Say that the number of trials is kept here."""
        return True

    @_first_error
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

    def handed_out(self) -> Iterable[str]:
        """Return the trials that have not ended, in their order."""
        return self._names

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

    @_first_error
    def stops(self, trial_id: str, scores: Mapping[str, float]) -> bool:
        """Ask the source whether a running item is to be stopped."""
        if self._source is None or not self._source.reported(self._names[trial_id], scores):
            return False
        self._stopped.add(trial_id)
        return True

    @_first_error
    def look(self) -> None:
        """Relay that no node has room for anything, each time that it comes to that."""
        before, self._stranded = self._stranded, self._slots.none(self._share)
        if self._stranded and not before:
            self.listener.stranded()

    @_first_error
    def began(self, trial_id: str) -> None:
        """Relay once that an item has its place."""
        if trial_id not in self._begun:
            self._begun.add(trial_id)
            self.listener.started(self._names[trial_id])

    @_first_error
    def progressed(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Relay a report of a running item."""
        if "scores" in result:
            self.listener.progressed(self._names[trial_id], result["scores"])

    @_first_error
    def lost(self, trial_id: str, why: str) -> None:
        """Relay that a process was lost; Tune starts the trial again."""
        name = self._names[trial_id]
        self._losses[name], self._why[name] = self._losses[name] + 1, why
        self.listener.lost(name, why)

    @_first_error
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle an item by the outcome its work reported."""
        if trial_id not in self._names:
            return
        self.began(trial_id)  # also one that failed while it waited
        self._begun.discard(trial_id)
        name = self._names.pop(trial_id)
        if trial_id in self._stopped:
            outcome, again = StageOutcome(status="stopped"), False
            self.queue.abandon(name)
        elif error or result is None or "status" not in result:
            outcome, again = self._given_up(name)
        else:
            outcome = StageOutcome(**{field.name: result[field.name] for field in fields(StageOutcome)})
            if outcome.status == "rejected":
                outcome = self._left_out(name, outcome)
            again = self._settle(name, outcome)
        self.listener.ended(name, outcome, again=again)
        if self._source is not None and not again:
            self._source.ended(name, outcome)
            self._tell_skipped()

    def _given_up(self, name: str) -> tuple[StageOutcome, bool]:
        """Tune tries a running trial again itself, but none whose process is lost before its work begins."""
        self._losses[name] += 1
        if self._losses[name] <= LOST_PROCESSES:
            self.queue.put_back(name)
            return StageOutcome(status="lost"), True
        why = self._why.get(name)
        detail = f"its process was lost {self._losses[name]} times{f': {why}' if why else ''}"
        outcome = StageOutcome(status="failed", detail=detail)
        return outcome, self.queue.fail(name, outcome.detail, final=True)

    def _left_out(self, name: str, outcome: StageOutcome) -> StageOutcome:
        """Leave nodes out; an item that met many fails, as where all that a cluster adds are blind."""
        self._met[name] += 1
        new = [self._slots.leave_out(node) for node in outcome.nodes]
        if self._met[name] > LOST_PROCESSES:
            return replace(outcome, status="failed", detail=f"{outcome.detail}; so were {LOST_PROCESSES} before it")
        return outcome if any(new) else replace(outcome, detail="")  # it was on its way there already

    def _tell_skipped(self) -> None:
        told, self._told = self._told, set(self.queue.skipped)
        for name in sorted(self._told - told):
            if self._source is not None:
                self._source.ended(name, StageOutcome(status="skipped"))

    def _settle(self, name: str, outcome: StageOutcome) -> bool:
        match outcome.status:
            case "done":
                self.queue.finish(name)
                return False
            case "busy" | "rejected":
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


class Stopper(FIFOScheduler):
    """Starts trials as they are handed out, and ends one at its next report where the source says so."""

    def __init__(self, searcher: QueueSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Return the first one that waits, a lost one at its old place.

        Tune's own goes through all that there ever were, thrice a trial.
        """
        waiting = {
            trial.trial_id: trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING
        }
        return next((waiting[name] for name in self._searcher.handed_out() if name in waiting), None)

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on one report; Tune gives it flattened."""
        scores = {key.removeprefix("scores/"): value for key, value in result.items() if key.startswith("scores/")}
        stops = bool(scores) and self._searcher.stops(trial.trial_id, scores)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)


class Relay(tune.Callback):
    """Passes intermediate reports on; a searcher hears of them only with a metric set."""

    def __init__(self, searcher: QueueSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Look whether there still is a node."""
        self._searcher.look()

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
        self._searcher.lost(trial.trial_id, _why(trial))


def _why(trial: Trial) -> str:
    """Return what a user can do something about of why a process was lost."""
    try:
        told = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    short = Shortage.__name__ in told.rpartition("Failure #")[2]
    return "the memory of its node was short" if short else ""
