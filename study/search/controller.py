"""Connect the searches to the stage queue: propose candidates, report their results, add stages to compare."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cluster.protocol import NewStages, StageOutcome
from study.planning.checks.search_checks import settings_text
from study.planning.graph import image_epochs, lineage
from study.search.arm_search import ArmSearch, ArmSearches
from study.search.journal import open_journal
from study.store.store import Store

NEVER = "the file's other settings do not fit these values"


@dataclass(eq=False)
class _OpenCandidate:
    """A queued or running candidate and its trials: equal settings are trained once."""

    chain: tuple[str, ...]
    trials: list[tuple[ArmSearch, FrozenTrial]] = field(default_factory=list)
    epochs: float = 0.0
    """Fraction of its last stage that is trained, according to the last report."""
    last_value: float | None = None


class SearchController:
    """The stage source of a study with a search.

    Args:
        searches: the searches of the plan.
        store: where finished stages are read.
        new_stages: returns queue items for digests with their ancestors; the flag is for candidates.
        compared: returns the digests of the pending stages of the plan.
        say: prints a line for the user.
    """

    def __init__(
        self,
        searches: ArmSearches,
        store: Store,
        *,
        new_stages: Callable[[Iterable[str], bool], NewStages],
        compared: Callable[[], Iterable[str]],
        say: Callable[[str], None],
    ) -> None:
        self._searches, self._plan, self._store = searches, searches.plan, store
        self._to_queue, self._compared, self._say = new_stages, compared, say
        self._open: dict[str, _OpenCandidate] = {}
        self._failed: dict[str, str] = {}
        self._offered: dict[str, int] = {}
        self._exhausted: set[str] = set()
        self._new = NewStages([], set())
        self._updated: set[str] = set()
        self._has_changed = True
        """Whether a stage ended since the pending stages of the plan were last listed."""
        journal = open_journal(searches.folder, create=True)
        assert journal is not None, "was created if missing"
        for arm_search in searches.all:
            arm_search.trials.open(journal, searches.points(arm_search))
            for trial in arm_search.trials.running():
                self._start(arm_search, trial)

    def next_stages(self, max_open: int) -> NewStages:
        """Return stages of arms whose search has finished, else candidates until `max_open` are queued or running."""
        if self._searches.conclude():
            self._add_pending()
        while not self._new.stages and len(self._open) < max_open and (arm_search := self._next_search()) is not None:
            trial = arm_search.trials.start()
            if trial is None:
                self._exhausted.add(arm_search.name)
            else:
                self._start(arm_search, trial)
            if self._searches.conclude():
                self._add_pending()
        if self._has_changed and not self._new.stages and not self._open:
            # A stage of the plan may have been trained as a candidate.
            self._add_pending()
            self._has_changed = False
        new, self._new = self._new, NewStages([], set())
        return new

    def reported(self, digest: str, scores: Mapping[str, float]) -> bool:
        """Record an epoch; return whether Optuna's pruner stops all trials of this candidate."""
        opened, search = self._open.get(digest), self._searches.search
        if opened is None:
            return False
        opened.epochs = scores["epoch"] / scores["epochs"]
        value = scores.get(search.metrics[0])
        if len(search.metrics) > 1 or value is None or math.isnan(value):
            return False
        opened.last_value = value
        pruned = [arm_search.trials.report(trial, int(scores["epoch"]), value) for arm_search, trial in opened.trials]
        return all(pruned) and scores["epoch"] < scores["epochs"]

    def ended(self, digest: str, outcome: StageOutcome) -> None:
        """Report the result of a candidate to Optuna."""
        self._has_changed = True
        if outcome.status == "failed":
            self._failed[digest] = outcome.detail.partition("\n")[0]
        opened = self._open.pop(digest, None)
        if opened is None:
            return
        match outcome.status:
            case "done":
                self._complete(opened)
            case "stopped":
                values = None if opened.last_value is None else [opened.last_value]
                self._report(opened, TrialState.PRUNED, values)
            case "skipped":
                reasons = [
                    f"{self._stage_name(stage)}: {self._failed[stage]}"
                    for stage in self._needed(digest)
                    if stage in self._failed
                ]
                self._report(
                    opened, TrialState.FAIL, None, reason=next(iter(reasons), "a stage that it starts from failed")
                )
            case _:
                self._report(opened, TrialState.FAIL, None, reason=self._failed.get(digest, outcome.detail))

    def draw(self) -> None:
        """Plot the searches that have new results."""
        from study.search.plots import draw

        for arm_search in self._searches.all:
            if arm_search.name in self._updated:
                draw(
                    arm_search.trials.study,
                    self._searches.search.metrics,
                    self._searches.folder / "search",
                    arm_search.name,
                )

    def _start(self, arm_search: ArmSearch, trial: FrozenTrial) -> None:
        """Add a candidate to the queue, or report its result if that is already known."""
        chain = self._searches.chain(arm_search.arms, arm_search.space, arm_search.fold, trial.params)
        if not chain:
            self._report(_OpenCandidate((), [(arm_search, trial)]), TrialState.FAIL, None, reason=NEVER)
            return
        last = chain[-1]
        opened = self._open.get(last) or _OpenCandidate(chain)
        opened.trials.append((arm_search, trial))
        failed_stage = next((stage for stage in self._needed(last) if stage in self._failed), None)
        earlier = self._equal_trial(arm_search, trial, last)
        if self._store.is_finished(last):
            self._complete(opened)
        elif failed_stage is not None:
            self._report(
                opened, TrialState.FAIL, None, reason=f"{self._stage_name(failed_stage)}: {self._failed[failed_stage]}"
            )
        elif earlier is not None:
            self._report(opened, earlier.state, earlier.values, reason=f"as trial {earlier.number}")
        elif last not in self._open:
            self._open[last] = opened
            self._add(self._to_queue(chain, True))

    def _add(self, new: NewStages) -> None:
        self._new.stages.extend(new.stages)
        self._new.done.update(new.done)

    def _equal_trial(self, arm_search: ArmSearch, trial: FrozenTrial, last: str) -> FrozenTrial | None:
        """Return a finished trial of this search with the same last stage, if any."""
        for earlier in arm_search.trials.all:
            ended = earlier.state.is_finished() and earlier.number != trial.number
            if ended and earlier.user_attrs.get("digest") == last:
                return earlier
        return None

    def _next_search(self) -> ArmSearch | None:
        """Return the unfinished search with the fewest open candidates, the first one if tied."""
        unfinished = [arm_search for arm_search in self._searches.all if arm_search.name not in self._exhausted]
        return min(unfinished, key=self._open_candidates, default=None)

    def _open_candidates(self, arm_search: ArmSearch) -> int:
        return sum(owner is arm_search for opened in self._open.values() for owner, _ in opened.trials)

    def _add_pending(self) -> None:
        """Add pending stages of the plan; each at most twice, so that the queue ends even if one stays pending."""
        pending = [digest for digest in self._compared() if digest not in self._open and digest not in self._failed]
        pending = [digest for digest in pending if self._offered.get(digest, 0) < 2]
        if pending:
            for digest in pending:
                self._offered[digest] = self._offered.get(digest, 0) + 1
            self._add(self._to_queue(pending, False))

    def _complete(self, opened: _OpenCandidate) -> None:
        values = values_of(self._store, opened.chain[-1], self._searches.search.metrics)
        if values is None:
            self._report(opened, TrialState.FAIL, None, reason="its score is undefined: no class occurs in validation")
        else:
            self._report(opened, TrialState.COMPLETE, values)

    def _report(self, opened: _OpenCandidate, state: TrialState, values: list[float] | None, reason: str = "") -> None:
        for arm_search, trial in opened.trials:
            attributes: dict[str, Any] = {"reason": reason} if reason else {}
            arm_search.trials.tell(
                trial, state, values, **attributes, **self._cost(opened, state, arm_search.arm_of(trial.params))
            )
            self._updated.add(arm_search.name)
            shown = f" {', '.join(f'{value:.4f}' for value in values)}" if values else ""
            settings = settings_text(trial.params)
            line = f"trial {trial.number} of {arm_search.name}: {state.name.lower()}{shown} ({settings})"
            self._say(line + (f": {reason}" if reason else ""))

    def _cost(self, opened: _OpenCandidate, state: TrialState, number: int) -> dict[str, float]:
        """Return the cost of the stages of a candidate of an arm that its search changes; other stages are shared."""
        if not opened.chain:
            return {}
        last, before = opened.chain[-1], self._searches.stages_before(number, opened.chain)
        before = [stage for stage in before if self._store.is_finished(stage)]
        earlier_cost, last_cost = (
            sum(image_epochs(self._plan, self._plan.node(stage)) for stage in stages) for stages in (before, [last])
        )
        if state != TrialState.COMPLETE:
            return {"image_epochs": earlier_cost + round(last_cost * opened.epochs)}
        seconds = sum(self._store.manifest(stage)["seconds"] for stage in (*before, last))
        return {"image_epochs": earlier_cost + last_cost, "seconds": seconds}

    def _needed(self, digest: str) -> list[str]:
        """Return a stage and all that it needs, the first ones first."""
        return list(reversed(lineage(self._plan.node, [digest])))

    def _stage_name(self, digest: str) -> str:
        return self._plan.node(digest).name


def values_of(store: Store, digest: str, metrics: Iterable[str]) -> list[float] | None:
    """Return the metric values of a finished stage; None if one is undefined."""
    import pyarrow.parquet as pq

    record = store.record(digest)
    history = pq.read_table(store.file(digest, "history.parquet")).to_pylist()
    best = next(row for row in history if row["epoch"] == record["best_epoch"])
    best |= {f"val/{metric}": value for metric, value in (record.get("averaged_scores") or {}).items()}
    recorded = {"val/mean_iou": record["best_score"], "parameters": record["parameters"], "seconds": record["seconds"]}
    values = [recorded[metric] if metric in recorded else best.get(metric) for metric in metrics]
    return None if any(value is None or math.isnan(value) for value in values) else [float(value) for value in values]
