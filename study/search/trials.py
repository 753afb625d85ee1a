"""The trials of one search in an Optuna journal, which `optuna-dashboard` can open."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from study.config.search import Prune, Search
from study.search.sampling import propose
from study.search.space import Space, Values

ChainOf = Callable[[Mapping[str, Any]], tuple[str, ...]]
"""Maps sampled parameters to the digests of the stages of the candidate; empty if there is no such candidate."""


class Trials:
    """The trials of one search. Nothing is written before `open`.

    Each space has a separate Optuna study, because choices cannot change within a study. Trials of earlier studies
    are reused if their values are in the space and they trained the same stage as the current file.
    """

    def __init__(
        self, name: str, space_id: str, search: Search, space: Space, chain_of: ChainOf, journal: JournalStorage | None
    ) -> None:
        self.name, self.study_name = name, f"{name} [{space_id}]"
        self.search, self.space = search, space
        self._chain_of = chain_of
        self._open: tuple[optuna.Study, JournalStorage] | None = None
        self._points: list[Values] = []
        self._known = self._read(journal) if journal is not None else []

    def open(self, journal: JournalStorage, points: Sequence[Values] = ()) -> None:
        """Create or load the Optuna study of this search, and add reusable trials of earlier studies."""
        carried = [trial for trial in self._known if "carried" in trial.user_attrs]
        self._points = list(points)
        study = optuna.create_study(
            storage=journal, study_name=self.study_name, directions=self.search.directions, load_if_exists=True,
            pruner=pruner(self.search.prune),
        )  # fmt: skip
        written = {trial.user_attrs.get("digest") for trial in study.get_trials(deepcopy=False)}
        study.add_trials([trial for trial in carried if trial.user_attrs["digest"] not in written])
        self._open = study, journal

    @property
    def study(self) -> optuna.Study:
        """Return the Optuna study of an opened search."""
        return self._opened[0]

    @property
    def _opened(self) -> tuple[optuna.Study, JournalStorage]:
        assert self._open is not None, "open first"
        return self._open

    @property
    def all(self) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers."""
        return self._open[0].get_trials(deepcopy=False) if self._open is not None else self._known

    @property
    def settled(self) -> int:
        """Return the number of trials that are complete, pruned or failed."""
        return sum(trial.state.is_finished() for trial in self.all)

    @property
    def complete(self) -> list[FrozenTrial]:
        """Return the complete trials, the best first: by the first metric, then by number."""
        complete = [trial for trial in self.all if trial.state == TrialState.COMPLETE]
        return sorted(complete, key=lambda trial: (self.search.sign * trial.values[0], trial.number))

    @property
    def finished(self) -> bool:
        """Return whether the search has completed its trials; a grid may have fewer points."""
        if self.settled >= self.search.trials:
            return True
        trials = self.all
        if self.search.sampler != "grid" or any(not trial.state.is_finished() for trial in trials):
            return False
        return propose(self.search, self.space, self.name, trials) is None

    def start(self) -> FrozenTrial | None:
        """Write the next candidate to the journal and return it; None if there is none."""
        study, journal = self._opened
        trials = self.all
        if len(trials) >= self.search.trials:
            return None
        trial = propose(self.search, self.space, self.name, trials, self._points)
        if trial is None:
            return None
        chain = self._chain_of(trial.params)
        trial.set_user_attr("digest", chain[-1] if chain else "")
        trial.set_user_attr("chain", chain)
        trial.set_user_attr("metric", ", ".join(self.search.metrics))
        return journal.get_trial(journal.create_new_trial(study._study_id, template_trial=trial))

    def running(self) -> list[FrozenTrial]:
        """Return the trials that an earlier driver left unfinished."""
        return [trial for trial in self.all if trial.state == TrialState.RUNNING]

    def report(self, trial: FrozenTrial, epoch: int, value: float) -> bool:
        """Record the value of an epoch; return whether to prune the trial."""
        study, journal = self._opened
        journal.set_trial_intermediate_value(trial._trial_id, epoch, value)
        return study.pruner.prune(study, journal.get_trial(trial._trial_id))

    def tell(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None = None, **facts: object
    ) -> None:
        """Record the result of a trial; `facts` become user attributes, written before the state."""
        _, journal = self._opened
        for name, value in facts.items():
            journal.set_trial_user_attr(trial._trial_id, name, value)
        journal.set_trial_state_values(trial._trial_id, state, values)

    def _read(self, journal: JournalStorage) -> list[FrozenTrial]:
        studies = {study.study_name: study._study_id for study in journal.get_all_studies()}
        study_id = studies.get(self.study_name)
        trials = journal.get_all_trials(study_id, deepcopy=False) if study_id is not None else []
        seen = {trial.user_attrs.get("digest") for trial in trials}
        for name, number in studies.items():
            if name != self.study_name and name.rpartition(" [")[0] == self.name:
                for trial in journal.get_all_trials(number, deepcopy=False):
                    carried = self._carried(trial)
                    if carried is not None and carried.user_attrs["digest"] not in seen:
                        seen.add(carried.user_attrs["digest"])
                        trials = [*trials, carried]
        return trials

    def _carried(self, trial: FrozenTrial) -> FrozenTrial | None:
        attributes = trial.user_attrs
        if not trial.state.is_finished() or attributes.get("metric") != ", ".join(self.search.metrics):
            return None
        params = self.space.fitting(trial.params, self.search.defaults)
        if params is None or self._chain_of(params)[-1:] != (attributes.get("digest"),):
            return None
        rungs = {name: value for name, value in trial.system_attrs.items() if name.startswith("completed_rung")}
        return create_trial(
            state=trial.state, params=params, distributions=self.space.distributions_of(params), values=trial.values,
            user_attrs={**attributes, "carried": True}, system_attrs=rungs,
            intermediate_values=trial.intermediate_values,
        )  # fmt: skip


def pruner(settings: Prune | None) -> BasePruner:
    """Return the Optuna pruner; its state is in the journal."""
    if settings is None:
        return NopPruner()
    if settings.median is not None:
        return MedianPruner(n_startup_trials=settings.median.trials, n_warmup_steps=settings.median.grace_period - 1)
    halving = settings.successive_halving
    assert halving is not None, "exactly one is given"
    return SuccessiveHalvingPruner(
        min_resource=halving.grace_period, reduction_factor=halving.reduction_factor, min_early_stopping_rate=0
    )
