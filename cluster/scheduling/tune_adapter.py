"""Adapts the stage queue to Ray Tune's searcher, scheduler and callback interfaces."""

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

from cluster.protocol import LOST_PROCESSES, Listener, StageOutcome, StageResources, StageSource
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import StageQueue
from cluster.scheduling.tune_patches import NodeOutOfMemory

P = ParamSpec("P")
T = TypeVar("T")


def _keep_first_error(
    method: Callable[Concatenate["QueueSearcher", P], T],
) -> Callable[Concatenate["QueueSearcher", P], T]:
    """Keep the first error of a call from Tune in `broken`, and raise it again in all later calls."""

    @functools.wraps(method)
    def wrapper(self: "QueueSearcher", /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self.broken is not None:
            raise self.broken
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.broken = error
            raise

    return wrapper


class QueueSearcher(Searcher):
    """Suggests ready stages of a queue as trials, and settles them by the outcomes that trials report."""

    def __init__(
        self,
        queue: StageQueue,
        listener: Listener,
        may_start: Callable[[str], bool],
        gpus: Callable[[str], float] | None,
        resources: StageResources,
        source: StageSource | None,
        slots: Slots,
    ) -> None:
        super().__init__()
        self.queue, self.listener, self._may_start, self._gpus = queue, listener, may_start, gpus
        self._resources, self._source, self._slots = resources, source, slots
        self._names: dict[str, str] = {}
        self._rejections: Counter[str] = Counter()
        """How often a stage was placed on a node that failed the check."""
        self._losses: Counter[str] = Counter()
        """How often the worker process of a stage was lost."""
        self._loss_reasons: dict[str, str] = {}
        """Reason of the last loss, where it is known."""
        self._started: set[str] = set()
        self._stopped: set[str] = set()
        self._reported_skipped: set[str] = set()
        self._stranded = False
        self.broken: Exception | None = None
        """First error of a call from Tune, which would wrap or ignore it."""

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Return True: `suggest` limits the number of trials."""
        return True

    @_keep_first_error
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of a ready stage; None while all wait, FINISHED at the end."""
        if len(self._names) >= self._slots.max_submitted():
            return None
        name = self._next_startable()
        while name is None and self.refill():
            name = self._next_startable()
        if name is None:
            return str(Searcher.FINISHED) if self.queue.finished else None
        self._names[trial_id] = name
        # With fractional GPUs only Ray knows which trials fit; `ReportCallback` then reports their start.
        if self._gpus is None and len(self._names) <= self._slots.max_running():
            self.started(trial_id)
        return {
            "id": name,
            "work": self.queue.stage(name).work,
            "gpus": self._resources.gpus if self._gpus is None else self._gpus(name),
            "excluded_nodes": sorted(self._slots.excluded),
        }

    def submitted_trials(self) -> Iterable[str]:
        """Return the ids of trials that have not ended, in the order of submission."""
        return self._names

    def refill(self) -> bool:
        """Add stages from the source; return whether there were any."""
        if self._source is None:
            return False
        stages, done = self._source.next_stages(self._slots.max_running())
        new = list(stages)
        self.queue.add(new, done=done)
        self._report_skipped()
        return bool(new)

    def _next_startable(self) -> str | None:
        postponed: list[str] = []
        while (name := self.queue.next()) is not None and not self._may_start(name):
            postponed.append(name)
        for blocked in postponed:
            self.queue.requeue(blocked)
        return name

    @_keep_first_error
    def should_stop(self, trial_id: str, scores: Mapping[str, float]) -> bool:
        """Return whether the source stops a running stage."""
        if self._source is None or not self._source.reported(self._names[trial_id], scores):
            return False
        self._stopped.add(trial_id)
        return True

    @_keep_first_error
    def check_capacity(self) -> None:
        """Notify the listener when no node fits a stage any more."""
        was_stranded, self._stranded = self._stranded, self._slots.none_fits(self._resources)
        if self._stranded and not was_stranded:
            self.listener.stranded()

    @_keep_first_error
    def started(self, trial_id: str) -> None:
        """Notify the listener, once, that a stage has its resources."""
        if trial_id not in self._started:
            self._started.add(trial_id)
            self.listener.started(self._names[trial_id])

    @_keep_first_error
    def progressed(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Notify the listener of scores that a running stage reported."""
        if "scores" in result:
            self.listener.progressed(self._names[trial_id], result["scores"])

    @_keep_first_error
    def lost(self, trial_id: str, reason: str) -> None:
        """Notify the listener that a worker process was lost; Tune restarts the trial."""
        name = self._names[trial_id]
        self._losses[name], self._loss_reasons[name] = self._losses[name] + 1, reason
        self.listener.lost(name, reason)

    @_keep_first_error
    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle a stage by the outcome it reported."""
        if trial_id not in self._names:
            return
        self.started(trial_id)  # also for a trial that failed while it was pending
        self._started.discard(trial_id)
        name = self._names.pop(trial_id)
        if trial_id in self._stopped:
            outcome, again = StageOutcome(status="stopped"), False
            self.queue.abandon(name)
        elif error or result is None or "status" not in result:
            outcome, again = self._retry_lost(name)
        else:
            outcome = StageOutcome(**{field.name: result[field.name] for field in fields(StageOutcome)})
            if outcome.status == "rejected":
                outcome = self._exclude_nodes(name, outcome)
            again = self._settle(name, outcome)
        self.listener.ended(name, outcome, again=again)
        if self._source is not None and not again:
            self._source.ended(name, outcome)
            self._report_skipped()

    def _retry_lost(self, name: str) -> tuple[StageOutcome, bool]:
        """Retry a stage whose process was lost before its work began; Tune itself restarts only running trials."""
        self._losses[name] += 1
        if self._losses[name] <= LOST_PROCESSES:
            self.queue.requeue(name)
            return StageOutcome(status="lost"), True
        reason = self._loss_reasons.get(name)
        detail = f"its process was lost {self._losses[name]} times{f': {reason}' if reason else ''}"
        outcome = StageOutcome(status="failed", detail=detail)
        return outcome, self.queue.fail(name, outcome.detail, final=True)

    def _exclude_nodes(self, name: str, outcome: StageOutcome) -> StageOutcome:
        """Exclude the nodes that rejected a stage; after many rejections the stage fails."""
        self._rejections[name] += 1
        newly_excluded = [self._slots.exclude(node) for node in outcome.nodes]
        if self._rejections[name] > LOST_PROCESSES:
            return replace(outcome, status="failed", detail=f"{outcome.detail}; so were {LOST_PROCESSES} before it")
        # A stage submitted before its node was excluded is not worth a second message.
        return outcome if any(newly_excluded) else replace(outcome, detail="")

    def _report_skipped(self) -> None:
        before, self._reported_skipped = self._reported_skipped, set(self.queue.skipped)
        for name in sorted(self._reported_skipped - before):
            if self._source is not None:
                self._source.ended(name, StageOutcome(status="skipped"))

    def _settle(self, name: str, outcome: StageOutcome) -> bool:
        match outcome.status:
            case "done":
                self.queue.finish(name)
                return False
            case "busy" | "rejected":
                self.queue.requeue(name)
                return True
            case "redo":
                return self.queue.redo(outcome.redo, name, outcome.detail)
            case _:
                return self.queue.fail(name, outcome.detail, final=bool(outcome.nodes))

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher for a restore that never happens."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: results are in the store, Tune's files are temporary."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a resumed study is planned again."""


class QueueScheduler(FIFOScheduler):
    """Starts trials in the order of submission, and stops a trial at a report where the source asks for it."""

    def __init__(self, searcher: QueueSearcher) -> None:
        super().__init__()
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as in the searcher."""
        return {}

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Return the first pending trial; a lost one keeps its position.

        Tune's own method iterates over all trials of the run, three times for each trial.
        """
        waiting = {
            trial.trial_id: trial for trial in tune_controller.get_live_trials() if trial.status == Trial.PENDING
        }
        return next((waiting[trial_id] for trial_id in self._searcher.submitted_trials() if trial_id in waiting), None)

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Decide on a report, whose keys Tune has flattened."""
        scores = {key.removeprefix("scores/"): value for key, value in result.items() if key.startswith("scores/")}
        stop = bool(scores) and self._searcher.should_stop(trial.trial_id, scores)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class ReportCallback(tune.Callback):
    """Passes intermediate reports to the searcher; Tune does so itself only if a metric is set."""

    def __init__(self, searcher: QueueSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, as in the searcher."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Check whether a node is still large enough."""
        self._searcher.check_capacity()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """Pass a report on."""
        self._searcher.progressed(trial.trial_id, result)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Pass a start on."""
        self._searcher.started(trial.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """Pass the loss of a worker process on."""
        self._searcher.lost(trial.trial_id, _loss_reason(trial))


def _loss_reason(trial: Trial) -> str:
    """Return why a process was lost if the user can act on it, else ""."""
    try:
        errors = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    out_of_memory = NodeOutOfMemory.__name__ in errors.rpartition("Failure #")[2]
    return "the memory of its node was short" if out_of_memory else ""
