"""Assigns ready stages to trials, and settles them by the outcomes that the trials report. Independent of Ray Tune."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypedDict

from cluster.protocol import MAX_LOSSES, Listener, StageOutcome, StageResources, StageSource, Work
from cluster.scheduling.capacity import Slots
from cluster.scheduling.stage_queue import StageQueue


class TrialConfig(TypedDict):
    """What a trial receives.

    Keys:
        id: Id of the stage to run.
        work: Runs the stage in place of the work function shared by all stages.
        gpus: GPUs of the stage, for each of its workers.
        excluded_nodes: Ids of the nodes that the trial must not use.
    """

    id: str
    work: Work | None
    gpus: float
    excluded_nodes: list[str]


class StageDispatcher:
    """Connects a queue of stages, the listener and the source to trials, each of which runs one stage.

    Args:
        may_start: Whether a ready stage may start now; called again later if not.
        gpus: GPUs of each stage in place of `resources.gpus`; `may_start` then has to respect the capacity.
        source: Adds stages during the run.
    """

    def __init__(
        self,
        queue: StageQueue,
        listener: Listener,
        slots: Slots,
        resources: StageResources,
        *,
        may_start: Callable[[str], bool] = lambda _: True,
        gpus: Callable[[str], float] | None = None,
        source: StageSource | None = None,
    ) -> None:
        self.queue = queue
        self._listener, self._slots, self._resources = listener, slots, resources
        self._may_start, self._gpus, self._source = may_start, gpus, source
        self._stage_ids: dict[str, str] = {}
        """Id of the stage of each trial that has not ended, in the order of submission."""
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

    @property
    def trial_ids(self) -> Iterable[str]:
        """Return the ids of the trials that have not ended, in the order of submission."""
        return self._stage_ids.keys()

    def assign(self, trial_id: str) -> TrialConfig | None:
        """Return the config of a trial that runs a ready stage; None while no stage can be submitted."""
        if len(self._stage_ids) >= self._slots.max_submitted():
            return None
        stage_id = self._next_startable()
        while stage_id is None and self.refill():
            stage_id = self._next_startable()
        if stage_id is None:
            return None
        self._stage_ids[trial_id] = stage_id
        # With fractional GPUs only Ray knows which trials fit; their start is reported once they run.
        if self._gpus is None and len(self._stage_ids) <= self._slots.max_running():
            self.started(trial_id)
        return TrialConfig(
            id=stage_id,
            work=self.queue.stage(stage_id).work,
            gpus=self._resources.gpus if self._gpus is None else self._gpus(stage_id),
            excluded_nodes=sorted(self._slots.excluded),
        )

    def refill(self) -> bool:
        """Add stages from the source; return whether there were any."""
        if self._source is None:
            return False
        new = self._source.next_stages(self._slots.max_running())
        self.queue.add(new.stages, done=new.done)
        self._report_skipped()
        return bool(new.stages)

    def _next_startable(self) -> str | None:
        postponed: list[str] = []
        while (stage_id := self.queue.next()) is not None and not self._may_start(stage_id):
            postponed.append(stage_id)
        for blocked in postponed:
            self.queue.requeue(blocked)
        return stage_id

    def check_capacity(self) -> None:
        """Notify the listener when no node fits a stage any more."""
        was_stranded, self._stranded = self._stranded, self._slots.none_fits(self._resources)
        if self._stranded and not was_stranded:
            self._listener.stranded()

    def started(self, trial_id: str) -> None:
        """Notify the listener, once, that a stage has its resources."""
        if trial_id not in self._started:
            self._started.add(trial_id)
            self._listener.started(self._stage_ids[trial_id])

    def progressed(self, trial_id: str, scores: Mapping[str, float]) -> bool:
        """Pass on the scores that a running stage reported; return whether the source stops the stage."""
        stage_id = self._stage_ids[trial_id]
        stop = self._source is not None and self._source.reported(stage_id, scores)
        if stop:
            self._stopped.add(trial_id)
        self._listener.progressed(stage_id, scores)
        return stop

    def lost(self, trial_id: str, reason: str) -> None:
        """Notify the listener that the worker process of a trial, which will be restarted, was lost."""
        stage_id = self._stage_ids[trial_id]
        self._losses[stage_id], self._loss_reasons[stage_id] = self._losses[stage_id] + 1, reason
        self._listener.lost(stage_id, reason)

    def ended(self, trial_id: str, outcome: StageOutcome | None) -> None:
        """Settle the stage of a trial by its outcome; None where the trial ended without one."""
        if trial_id not in self._stage_ids:
            return
        self.started(trial_id)  # also for a trial that failed while it was pending
        self._started.discard(trial_id)
        stage_id = self._stage_ids.pop(trial_id)
        if trial_id in self._stopped:
            outcome, again = StageOutcome(status="stopped"), False
            self.queue.abandon(stage_id)
        elif outcome is None:
            outcome, again = self._retry_lost(stage_id)
        else:
            if outcome.status == "rejected":
                outcome = self._exclude_nodes(stage_id, outcome)
            again = self._settle(stage_id, outcome)
        self._listener.ended(stage_id, outcome, again=again)
        if not again:
            if self._source is not None:
                self._source.ended(stage_id, outcome)
            self._report_skipped()

    def _retry_lost(self, stage_id: str) -> tuple[StageOutcome, bool]:
        """Retry a stage whose process was lost before its work began; Tune itself restarts only running trials."""
        self._losses[stage_id] += 1
        if self._losses[stage_id] <= MAX_LOSSES:
            self.queue.requeue(stage_id)
            return StageOutcome(status="lost"), True
        reason = self._loss_reasons.get(stage_id)
        detail = f"its process was lost {self._losses[stage_id]} times{f': {reason}' if reason else ''}"
        outcome = StageOutcome(status="failed", detail=detail)
        return outcome, self.queue.fail(stage_id, outcome.detail, final=True)

    def _exclude_nodes(self, stage_id: str, outcome: StageOutcome) -> StageOutcome:
        """Exclude the nodes that rejected a stage; after many rejections the stage fails."""
        self._rejections[stage_id] += 1
        newly_excluded = [self._slots.exclude(node) for node in outcome.nodes]
        if self._rejections[stage_id] > MAX_LOSSES:
            return replace(outcome, status="failed", detail=f"{outcome.detail}; so were {MAX_LOSSES} before it")
        # A stage submitted before its node was excluded is not worth a second message.
        return outcome if any(newly_excluded) else replace(outcome, detail="")

    def _report_skipped(self) -> None:
        before, self._reported_skipped = self._reported_skipped, set(self.queue.skipped)
        for stage_id in sorted(self._reported_skipped - before):
            outcome = StageOutcome(status="skipped")
            self._listener.ended(stage_id, outcome, again=False)
            if self._source is not None:
                self._source.ended(stage_id, outcome)

    def _settle(self, stage_id: str, outcome: StageOutcome) -> bool:
        """Update the queue; return whether the stage runs again."""
        match outcome.status:
            case "done":
                self.queue.finish(stage_id)
                return False
            case "busy" | "rejected":
                self.queue.requeue(stage_id)
                return True
            case "redo":
                return self.queue.redo(outcome.redo, stage_id, outcome.detail)
            case _:
                return self.queue.fail(stage_id, outcome.detail, final=bool(outcome.nodes))
