"""The searches of a plan: their arms and images, their results, and which arms are compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial

from study.errors import ConfigError
from study.planning.arms import Arm, Resolver
from study.planning.baselines import baseline_of
from study.planning.builder import Planner
from study.planning.checks.search_checks import first_changed, parameters_of
from study.planning.digest import digest
from study.planning.graph import Plan, position_in
from study.search.journal import count_lines, open_intact_part, open_journal, repair_journal
from study.search.space import Space, Values, encoded
from study.search.trials import Trials


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmSearch:
    """One search. `arms` are numbers in the plan; `fold` is None if it uses the reserve."""

    name: str
    arms: tuple[int, ...]
    fold: int | None
    space: Space
    trials: Trials

    def arm_of(self, params: Mapping[str, Any]) -> int:
        """Return the number of the arm to which a trial belongs."""
        return self.arms[self.space.arm(params) or 0]


class ArmSearches:
    """The searches for the waiting arms of a plan; `conclude` plans arms whose searches have finished."""

    def __init__(self, plan: Plan, planner: Planner, folder: Path) -> None:
        assert plan.spec.search is not None, "a study without search has none"
        self.plan, self.planner, self.search = plan, planner, plan.spec.search
        self.folder = folder
        self.arms_without_result: list[str] = []
        """Arms for which no candidate was completed."""
        self._resolver = Resolver(plan.spec)
        self._warm_start_journal: JournalStorage | None = None
        """Journal of the study named by `warm_start`."""
        journal, self.damage = open_intact_part(folder)
        self.all = [self._arm_search(arms, fold, journal) for arms in self._groups() for fold in self._folds()]

    def repair(self) -> str | None:
        """Repair a damaged journal and return a message; the trials before the damage are kept."""
        return repair_journal(self.folder) if self.damage else None

    def journal_lines(self) -> int:
        """Return the current number of lines of the journal."""
        return count_lines(self.folder)

    def _groups(self) -> list[tuple[int, ...]]:
        waiting = tuple(self.plan.graph.waiting)
        return [waiting] if self.search.scope == "study" else [(number,) for number in waiting]

    def _folds(self) -> list[int | None]:
        return list(range(self.plan.spec.compare.folds)) if self.search.nested else [None]

    def _arm_search(self, arms: tuple[int, ...], fold: int | None, journal: JournalStorage | None) -> ArmSearch:
        searched = [self.plan.arms[number] for number in arms]
        space = Space([arm.factors for arm in searched], [parameters_of(self.plan.spec, arm) for arm in searched])
        name = " / ".join(searched[0].key) if self.search.scope == "arm" else "all arms"
        name += f" / fold {fold}" if fold is not None else ""
        bases = [self.planner.candidate(arm, fold)[-1] for arm in searched]
        space_id = digest([space.digest, self.search.metrics, bases])[:8]
        trials = Trials(name, space_id, self.search, space, partial(self.chain, arms, space, fold), journal)
        return ArmSearch(name=name, arms=arms, fold=fold, space=space, trials=trials)

    def chain(
        self, arms: tuple[int, ...], space: Space, fold: int | None, params: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Plan a candidate and return its chain; empty if its values do not fit together."""
        arm = self._resolved(arms[space.arm(params) or 0], space.settings(params))
        try:
            return self.planner.candidate(arm, fold) if arm is not None else ()
        except ConfigError:
            return ()

    def stages_before(self, number: int, chain: Sequence[str]) -> list[str]:
        """Return the stages before the last one of a candidate of an arm that the parameters of its search change."""
        arm = self.plan.arms[number]
        first = first_changed(arm, parameters_of(self.plan.spec, arm))
        start = position_in(chain, first, links=len(arm.chain))
        teachers = (teacher for digest in chain[start + 1 :] for teacher in self.plan.node(digest).teachers)
        return list(dict.fromkeys([*chain[start:-1], *teachers]))

    def _resolved(self, number: int, settings: Mapping[str, Any]) -> Arm | None:
        return self._resolver.arm(self.plan.arms[number].row, settings)

    def points(self, arm_search: ArmSearch) -> list[Values]:
        """Return the points to try first: those of the file, then the best trials of the warm-start study."""
        points = [{path: encoded(value) for path, value in point.items()} for point in self.search.points]
        return points + self._warm_start_points(arm_search)

    def _warm_start_points(self, arm_search: ArmSearch) -> list[Values]:
        earlier = self.search.warm_start
        if self._warm_start_journal is None and earlier:
            self._warm_start_journal = open_journal(self.folder.parent / earlier, create=False)
        journal = self._warm_start_journal
        if journal is None:
            return []
        points: list[tuple[float, Values]] = []
        for study in journal.get_all_studies():
            if study.study_name.rpartition(" [")[0] == arm_search.name:
                for trial in journal.get_all_trials(study._study_id, deepcopy=False):
                    values = arm_search.space.fitting(trial.params, self.search.defaults)
                    if trial.values and trial.state.name == "COMPLETE" and values is not None:
                        points.append((self.search.sign * trial.values[0], values))
        best: list[Values] = []
        for _, values in sorted(points, key=lambda pair: pair[0]):
            if values not in best:
                best.append(values)
        return best[: max(1, self.search.trials // 4)]

    def candidate_stages(self) -> set[str]:
        """Return the last stages of all candidates, including those of earlier runs."""
        return {trial.user_attrs["digest"] for arm_search in self.all for trial in arm_search.trials.all}

    def summaries(self) -> list[dict[str, object]]:
        """Return what is needed to read the trials of each search from the journal."""
        metrics, trials = list(self.search.metrics), self.search.trials
        return [
            {"name": arm_search.name, "study": arm_search.trials.study_name, "metrics": metrics, "trials": trials}
            for arm_search in self.all
        ]

    @property
    def finished(self) -> bool:
        """Return whether all searches have completed their trials."""
        return all(arm_search.trials.finished for arm_search in self.all)

    def conclude(self) -> bool:
        """Plan the arms whose searches have finished; return whether there were any."""
        by_arm: dict[int, list[ArmSearch]] = {}
        for arm_search in self.all:
            for number in arm_search.arms:
                by_arm.setdefault(number, []).append(arm_search)
        if self.search.scope == "study" or self.plan.spec.compare.top is not None:
            ready = self._ranked(by_arm) if self.finished else []
        else:
            ready = [
                number for number, group in by_arm.items() if all(arm_search.trials.finished for arm_search in group)
            ]
        waiting = self.plan.graph.waiting
        ready = [number for number in ready if number in waiting]
        for number in ready:
            self._plan_arm(number, by_arm[number])
        if self.finished:  # arms that are not compared no longer wait
            self.plan.graph.conclude(waiting)
        return bool(ready)

    def _plan_arm(self, number: int, arm_searches: list[ArmSearch]) -> None:
        by_fold: dict[int | None, Arm] = {}
        searched_with: dict[int | None, frozenset[int]] = {}
        for arm_search in arm_searches:
            best = self.best(arm_search, number)
            arm = self._resolved(number, arm_search.space.settings(best.params)) if best is not None else None
            if arm is not None:
                by_fold[arm_search.fold] = arm
                searched_with[arm_search.fold] = self._rows_used(arm_search, arm)
        self.plan.graph.conclude([number], searched_with)
        if not by_fold and self.search.scope == "study":  # an untried baseline: with the settings of the file
            by_fold[None] = self.plan.arms[number]
        if len(by_fold) < len(arm_searches):
            self.arms_without_result.append(" / ".join(self.plan.arms[number].key))
            return
        shared = by_fold.get(None, next(iter(by_fold.values())))
        self.planner.add(number, shared, by_fold={fold: arm for fold, arm in by_fold.items() if fold is not None})

    def _rows_used(self, arm_search: ArmSearch, arm: Arm) -> frozenset[int]:
        node = self.plan.node(self.planner.candidate(arm, arm_search.fold)[-1])
        rows = self.plan.views[self.plan.target].stage_rows(node.selection)
        return frozenset((*rows.train, *rows.validation))

    def best(self, arm_search: ArmSearch, number: int) -> FrozenTrial | None:
        """Return the best complete trial of one arm."""
        return next((trial for trial in arm_search.trials.complete if arm_search.arm_of(trial.params) == number), None)

    def _ranked(self, by_arm: Mapping[int, list[ArmSearch]]) -> list[int]:
        """Return the arms to compare: those with the best values, then their baselines."""
        values: dict[int, float] = {}
        for number, arm_searches in by_arm.items():
            best = [trial for arm_search in arm_searches if (trial := self.best(arm_search, number)) is not None]
            if len(best) == len(arm_searches):
                values[number] = self.search.sign * sum(trial.values[0] for trial in best) / len(best)
        kept = sorted(values, key=lambda number: (values[number], number))[: self.plan.spec.compare.top]
        keys = {arm.key: number for number, arm in enumerate(self.plan.arms)}
        needed = [
            keys[baseline_of(self.plan.arms[number], rule)]
            for number in kept
            for rule in self.plan.spec.compare.baseline
        ]
        return list(dict.fromkeys([*kept, *needed]))

    def cells_at_stake(self, finished: Callable[[str, str], bool]) -> int:
        """Return the number of evaluated cells that would be retrained if the best trial of their arm changed.

        Args:
            finished: returns whether a stage, given by digest, has the scores of a key.
        """
        cells: set[tuple[int, float | int]] = set()
        waiting = self.plan.graph.waiting
        for arm_search in self.all:
            for number in arm_search.arms:
                best = self.best(arm_search, number) if number in waiting else None
                arm = self._resolved(number, arm_search.space.settings(best.params)) if best is not None else None
                for row in self.planner.preview(number, arm) if arm is not None else ():
                    if finished(row.chain[-1], row.scoring.key):
                        cells.add((number, row.labelled))
        return len(cells)
