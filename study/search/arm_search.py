"""All searches of a plan: whose settings, on which images, what they found, and which arms are compared with it."""

from collections.abc import Callable, Mapping
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
from study.planning.checks.search_checks import first_changed, own_parameters
from study.planning.digest import digest
from study.planning.graph import Plan
from study.search.journal import count_lines, open_journal, open_sound_part, repair_journal
from study.search.space import Space, Values, encoded
from study.search.trials import Trials


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmSearch:
    """One search. `arms` are numbers in the plan; `fold` is None where it uses the reserve."""

    name: str
    arms: tuple[int, ...]
    fold: int | None
    space: Space
    trials: Trials

    def arm_of(self, params: Mapping[str, Any]) -> int:
        """Return which arm of the plan a trial is of."""
        return self.arms[self.space.arm(params) or 0]


class ArmSearches:
    """Made for a plan whose searched arms wait; `conclude` plans those whose search has ended."""

    def __init__(self, plan: Plan, planner: Planner, folder: Path) -> None:
        assert plan.spec.search is not None, "a study without search has none"
        self.plan, self.planner, self.search = plan, planner, plan.spec.search
        self.folder = folder
        self.arms_without_result: list[str] = []
        """Searches in which no candidate came to its end."""
        self._resolver = Resolver(plan.spec)
        self._left_out: set[int] = set()
        self._earlier: JournalStorage | None = None
        """The journal of the study that the search starts from."""
        journal, self.damage = open_sound_part(folder)
        if self.damage:
            plan.warnings.append(f"search: {self.damage}; a run keeps the trials before it and searches on from there")
        self.all = [self._one(arms, fold, journal) for arms in self._groups() for fold in self._folds()]

    def repair(self) -> str | None:
        """Set a damaged journal aside, and return what was done; the trials before the damage are kept."""
        return repair_journal(self.folder) if self.damage else None

    def journal_lines(self) -> int:
        """Return how many lines the journal has by now."""
        return count_lines(self.folder)

    def _groups(self) -> list[tuple[int, ...]]:
        waiting = tuple(self.plan.waiting)
        return [waiting] if self.search.scope == "study" else [(number,) for number in waiting]

    def _folds(self) -> list[int | None]:
        return list(range(self.plan.spec.compare.folds)) if self.search.nested else [None]

    def _one(self, arms: tuple[int, ...], fold: int | None, journal: JournalStorage | None) -> ArmSearch:
        found = [self.plan.arms[number] for number in arms]
        space = Space([arm.factors for arm in found], [own_parameters(self.plan.spec, arm) for arm in found])
        name = " / ".join(found[0].key) if self.search.scope == "arm" else "all arms"
        name += f" / fold {fold}" if fold is not None else ""
        bases = [self.planner.candidate(arm, fold)[-1] for arm in found]
        mark = digest([space.digest, self.search.metrics, bases])[:8]
        trials = Trials(name, mark, self.search, space, partial(self.chain, arms, space, fold), journal)
        return ArmSearch(name=name, arms=arms, fold=fold, space=space, trials=trials)

    def chain(
        self, arms: tuple[int, ...], space: Space, fold: int | None, params: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Plan a candidate and return its chain; empty where its values do not fit together."""
        arm = self._resolved(arms[space.arm(params) or 0], space.settings(params))
        try:
            return self.planner.candidate(arm, fold) if arm is not None else ()
        except ConfigError:
            return ()

    def _resolved(self, number: int, settings: Mapping[str, Any]) -> Arm | None:
        return self._resolver.arm(self.plan.arms[number].row, settings)

    def points(self, one: ArmSearch) -> list[Values]:
        """Return what is tried first: the given points, then the best that an earlier study found for these arms."""
        given = [{path: encoded(value) for path, value in point.items()} for point in self.search.points]
        return given + self._warm(one)

    def _warm(self, one: ArmSearch) -> list[Values]:
        earlier = self.search.warm_start
        if self._earlier is None and earlier:
            self._earlier = open_journal(self.folder.parent / earlier, create=False)
        journal = self._earlier
        if journal is None:
            return []
        found: list[tuple[float, Values]] = []
        for study in journal.get_all_studies():
            if study.study_name.rpartition(" [")[0] == one.name:
                for trial in journal.get_all_trials(study._study_id, deepcopy=False):
                    fits = one.space.fitting(trial.params, self.search.defaults)
                    if trial.values and trial.state.name == "COMPLETE" and fits is not None:
                        found.append((self.search.sign * trial.values[0], fits))
        best: list[Values] = []
        for _, values in sorted(found, key=lambda pair: pair[0]):
            if values not in best:
                best.append(values)
        return best[: max(1, self.search.trials // 4)]

    def tried(self) -> set[str]:
        """Return the last stages of all candidates, also of those that a killed driver trained."""
        return {trial.user_attrs["digest"] for one in self.all for trial in one.trials.all}

    def told(self) -> list[dict[str, object]]:
        """Return what a reader of the journal needs to know of each search."""
        metrics, trials = list(self.search.metrics), self.search.trials
        return [
            {"name": one.name, "study": one.trials.study_name, "metrics": metrics, "trials": trials} for one in self.all
        ]

    @property
    def finished(self) -> bool:
        """Return whether every search has had its trials."""
        return all(one.trials.finished for one in self.all)

    def conclude(self) -> bool:
        """Plan the arms whose searches have ended; return whether there were any."""
        by_arm: dict[int, list[ArmSearch]] = {}
        for one in self.all:
            for number in one.arms:
                by_arm.setdefault(number, []).append(one)
        if self.search.scope == "study" or self.plan.spec.compare.top is not None:
            ready = self._ranked(by_arm) if self.finished else []
        else:
            ready = [number for number, ones in by_arm.items() if all(one.trials.finished for one in ones)]
        ready = [number for number in ready if number in self.plan.waiting]
        for number in ready:
            self._settle(number, by_arm[number])
        if self.finished:  # what is not compared waits for nothing
            self.plan.waiting.clear()
        self._count_after_search()
        return bool(ready)

    def _settle(self, number: int, ones: list[ArmSearch]) -> None:
        del self.plan.waiting[number]
        found: dict[int | None, Arm] = {}
        for one in ones:
            best = self.best(one, number)
            arm = self._resolved(number, one.space.settings(best.params)) if best is not None else None
            if arm is not None:
                found[one.fold] = arm
                self.plan.searched_with[number, one.fold] = self._masks(one, arm)
        if not found and self.search.scope == "study":  # a baseline that no candidate tried: as the file has it
            found[None] = self.plan.arms[number]
        if len(found) < len(ones):
            self.arms_without_result.append(" / ".join(self.plan.arms[number].key))
            return
        shared = found.get(None, next(iter(found.values())))
        self.plan.arms[number] = shared
        self.planner.add(number, shared, by_fold={fold: arm for fold, arm in found.items() if fold is not None})

    def _masks(self, one: ArmSearch, arm: Arm) -> frozenset[int]:
        node = self.plan.node(self.planner.candidate(arm, one.fold)[-1])
        reading = self.plan.views[self.plan.target].reading(node.draw)
        return frozenset((*reading.train, *reading.validation))

    def best(self, one: ArmSearch, number: int) -> FrozenTrial | None:
        """Return the best complete trial of one arm."""
        return next((trial for trial in one.trials.complete if one.arm_of(trial.params) == number), None)

    def _ranked(self, by_arm: Mapping[int, list[ArmSearch]]) -> list[int]:
        """Return the arms to compare: those with the best values, then the baselines that these need."""
        values: dict[int, float] = {}
        for number, ones in by_arm.items():
            best = [trial for one in ones if (trial := self.best(one, number)) is not None]
            if len(best) == len(ones):
                values[number] = self.search.sign * sum(trial.values[0] for trial in best) / len(best)
        kept = sorted(values, key=lambda number: (values[number], number))[: self.plan.spec.compare.top]
        keys = {arm.key: number for number, arm in enumerate(self.plan.arms)}
        needed = [
            keys[baseline_of(self.plan.arms[number], rule)]
            for number in kept
            for rule in self.plan.spec.compare.baseline
        ]
        return list(dict.fromkeys([*kept, *needed]))

    def at_stake(self, finished: Callable[[str, str], bool]) -> int:
        """Return how many compared cells would be trained again if the best of their arm changed.

        `finished` says whether a stage has its scores. What is the best so far is what was compared before.
        """
        cells: set[tuple[int, float | int]] = set()
        for one in self.all:
            for number in one.arms:
                best = self.best(one, number) if number in self.plan.waiting else None
                arm = self._resolved(number, one.space.settings(best.params)) if best is not None else None
                for row in self.planner.preview(number, arm) if arm is not None else ():
                    if finished(row.chain[-1], row.scoring.key):
                        cells.add((number, row.labelled))
        return len(cells)

    def _count_after_search(self) -> None:
        kept: set[str] = set()
        for number, rows in self.plan.waiting.items():
            arm = self.plan.arms[number]
            first = first_changed(arm, own_parameters(self.plan.spec, arm))
            kept.update(name for row in rows for name in row.chain[first:])
        for name in self.plan.after_search.keys() - kept:
            del self.plan.after_search[name]
