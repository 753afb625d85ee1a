"""Between the searches and the queue: asks for candidates, tells how they ended, brings what is compared after."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from cluster.protocol import QueuedStage, StageOutcome
from study.planning.checks.search_checks import settings_text
from study.planning.graph import image_epochs
from study.search.arm_search import ArmSearch, ArmSearches
from study.search.journal import open_journal
from study.store.store import Store

Batch = tuple[list[QueuedStage], set[str]]
NEVER = "the file's other settings do not fit these values"


@dataclass(eq=False)
class _Open:
    """A candidate under way, and the trials that wait for it: equal settings are trained once."""

    chain: tuple[str, ...]
    trials: list[tuple[ArmSearch, FrozenTrial]] = field(default_factory=list)
    epochs: float = 0.0
    """Share of its last stage that was trained, so far as it was told."""
    last: float | None = None


class Driver:
    """The source of a study with a search.

    `items` makes items of digests, `compared` lists what of the plan is left to do, `say` gets lines for the user.
    """

    def __init__(
        self,
        searches: ArmSearches,
        store: Store,
        *,
        items: Callable[[Iterable[str], bool], Batch],
        compared: Callable[[], Iterable[str]],
        say: Callable[[str], None],
    ) -> None:
        self._searches, self._plan, self._store = searches, searches.plan, store
        self._items, self._compared, self._say = items, compared, say
        self._open: dict[str, _Open] = {}
        self._failed: dict[str, str] = {}
        self._offered: dict[str, int] = {}
        self._exhausted: set[str] = set()
        self._begun: list[QueuedStage] = []
        self._done: set[str] = set()
        self._moved: set[str] = set()
        self._news = True
        """Whether anything ended since what is compared was last looked for."""
        journal = open_journal(searches.folder, create=True)
        assert journal is not None, "made where it was not"
        for one in searches.all:
            one.trials.open(journal, searches.points(one))
            for trial in one.trials.running():
                self._begin(one, trial)

    def more(self, slots: int) -> Batch:
        """Return the comparison of arms whose search ended, else new candidates while fewer than the slots are open."""
        if self._searches.conclude():
            self._compare()
        while not self._begun and len(self._open) < slots and (one := self._hungriest()) is not None:
            trial = one.trials.start()
            if trial is None:
                self._exhausted.add(one.name)
            else:
                self._begin(one, trial)
            if self._searches.conclude():
                self._compare()
        if self._news and not self._begun and not self._open:  # a stage may have been tried before it was compared
            self._compare()
            self._news = False
        batch = self._begun, self._done
        self._begun, self._done = [], set()
        return batch

    def reported(self, name: str, scores: Mapping[str, float]) -> bool:
        """Record an epoch; return whether Optuna's pruner ends every trial that waits for it."""
        opened, search = self._open.get(name), self._searches.search
        if opened is None:
            return False
        opened.epochs = scores["epoch"] / scores["epochs"]
        value = scores.get(search.metrics[0])
        if len(search.metrics) > 1 or value is None or math.isnan(value):
            return False
        opened.last = value
        ended = [one.trials.report(trial, int(scores["epoch"]), value) for one, trial in opened.trials]
        return all(ended) and scores["epoch"] < scores["epochs"]

    def ended(self, name: str, outcome: StageOutcome) -> None:
        """Tell Optuna how a candidate ended."""
        self._news = True
        if outcome.status == "failed":
            self._failed[name] = outcome.detail.partition("\n")[0]
        opened = self._open.pop(name, None)
        if opened is None:
            return
        match outcome.status:
            case "done":
                self._complete(opened)
            case "stopped":
                values = None if opened.last is None else [opened.last]
                self._tell(opened, TrialState.PRUNED, values)
            case "skipped":
                reasons = [f"{self._stage(at)}: {self._failed[at]}" for at in opened.chain if at in self._failed]
                self._tell(opened, TrialState.FAIL, None, reason=next(iter(reasons), "what it starts from failed"))
            case _:
                self._tell(opened, TrialState.FAIL, None, reason=self._failed.get(name, outcome.detail))

    def draw(self) -> None:
        """Draw the searches that went on."""
        from study.search.plots import draw

        for one in self._searches.all:
            if one.name in self._moved:
                draw(one.trials.study, self._searches.search.metrics, self._searches.folder / "search", one.name)

    def _begin(self, one: ArmSearch, trial: FrozenTrial) -> None:
        """Open a candidate, or tell at once what is known of it."""
        chain = self._searches.chain(one.arms, one.space, one.fold, trial.params)
        if not chain:
            self._tell(_Open((), [(one, trial)]), TrialState.FAIL, None, reason=NEVER)
            return
        last = chain[-1]
        opened = self._open.get(last) or _Open(chain)
        opened.trials.append((one, trial))
        broken = next((at for at in chain if at in self._failed), None)
        before = self._repeated(one, trial, last)
        if self._store.is_finished(last):
            self._complete(opened)
        elif broken is not None:
            self._tell(opened, TrialState.FAIL, None, reason=f"{self._stage(broken)}: {self._failed[broken]}")
        elif before is not None:
            self._tell(opened, before.state, before.values, reason=f"as trial {before.number}")
        elif last not in self._open:
            self._open[last] = opened
            items, done = self._items(chain, True)
            self._begun += items
            self._done |= done

    def _repeated(self, one: ArmSearch, trial: FrozenTrial, last: str) -> FrozenTrial | None:
        """Return a trial of this search that was ended on the very same stage."""
        for other in one.trials.all:
            ended = other.state.is_finished() and other.number != trial.number
            if ended and other.user_attrs.get("digest") == last:
                return other
        return None

    def _hungriest(self) -> ArmSearch | None:
        """Return the unfinished search with the fewest open candidates, the first of several."""
        waiting = [one for one in self._searches.all if one.name not in self._exhausted]
        return min(waiting, key=self._open_of, default=None)

    def _open_of(self, one: ArmSearch) -> int:
        return sum(other is one for opened in self._open.values() for other, _ in opened.trials)

    def _compare(self) -> None:
        """Bring what is compared and not under way; each twice at most, so that nothing is offered for ever."""
        left = [name for name in self._compared() if name not in self._open and name not in self._failed]
        left = [name for name in left if self._offered.get(name, 0) < 2]
        if left:
            for name in left:
                self._offered[name] = self._offered.get(name, 0) + 1
            items, done = self._items(left, False)
            self._begun += items
            self._done |= done

    def _complete(self, opened: _Open) -> None:
        values = values_of(self._store, opened.chain[-1], self._searches.search.metrics)
        if values is None:
            self._tell(opened, TrialState.FAIL, None, reason="its score is undefined: no class occurs in validation")
        else:
            self._tell(opened, TrialState.COMPLETE, values)

    def _tell(self, opened: _Open, state: TrialState, values: list[float] | None, reason: str = "") -> None:
        for one, trial in opened.trials:
            facts: dict[str, Any] = {"reason": reason} if reason else {}
            one.trials.tell(trial, state, values, **facts, **self._cost(opened, state))
            self._moved.add(one.name)
            shown = f" {', '.join(f'{value:.4f}' for value in values)}" if values else ""
            settings = settings_text(trial.params)
            told = f"trial {trial.number} of {one.name}: {state.name.lower()}{shown} ({settings})"
            self._say(told + (f": {reason}" if reason else ""))

    def _cost(self, opened: _Open, state: TrialState) -> dict[str, float]:
        """Return what the last stage of a candidate cost; the stages before it are shared."""
        if not opened.chain:
            return {}
        last = opened.chain[-1]
        whole = image_epochs(self._plan, self._plan.node(last))
        if state != TrialState.COMPLETE:
            return {"image_epochs": round(whole * opened.epochs)}
        return {"image_epochs": whole, "seconds": self._store.seal(last)["seconds"]}

    def _stage(self, name: str) -> str:
        return self._plan.node(name).step.stage


def values_of(store: Store, name: str, metrics: Iterable[str]) -> list[float] | None:
    """Return what a finished stage is judged by; None where a value is undefined."""
    import pyarrow.parquet as pq

    record = store.record(name)
    history = pq.read_table(store.file(name, "history.parquet")).to_pylist()
    best = next(row for row in history if row["epoch"] == record["best_epoch"])
    best |= {f"val/{metric}": value for metric, value in (record.get("averaged_scores") or {}).items()}
    known = {"val/mean_iou": record["best_score"], "parameters": record["parameters"], "seconds": record["seconds"]}
    values = [known[metric] if metric in known else best.get(metric) for metric in metrics]
    return None if any(value is None or math.isnan(value) for value in values) else [float(one) for one in values]
