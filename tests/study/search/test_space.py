"""Spaces, samplers and the journal, driven without training."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from study.config.search import Parameter, Search
from study.search.journal import open_journal
from study.search.sampling import propose
from study.search.space import Space, decoded, distribution
from study.search.trials import Trials

LINE = {"target.optimizer.lr": Parameter(loguniform=(1e-5, 1e-1)), "target.loss.dice": Parameter(uniform=(0.0, 2.0))}
ARM = {"architecture": "unet"}


def bowl(params: dict[str, Any]) -> float:
    """Highest, 0, at a learning rate of 1e-3 and a weight of 0.7."""
    import math

    return -((math.log10(params["target.optimizer.lr"]) + 3) ** 2) - (params["target.loss.dice"] - 0.7) ** 2


def a_search(**changes: object) -> Search:
    return Search.model_validate(
        {"trials": 12, "space": {name: one.model_dump(exclude_none=True) for name, one in LINE.items()}} | changes
    )


def trials_of(search: Search, folder: Path, space: Space | None = None, name: str = "arm") -> Trials:
    space = space or Space([ARM], [search.space])
    journal = open_journal(folder, create=True)
    assert journal is not None
    found = Trials(name, space.digest, search, space, lambda params: (repr(sorted(params.items())),), journal)
    found.open(journal)
    return found


def driven(trials: Trials, objective: Callable[[dict[str, Any]], float] = bowl, *, most: int = 10_000) -> None:
    """Run a search one candidate at a time; those left running first."""
    for trial in trials.running():
        trials.tell(trial, TrialState.COMPLETE, [objective(trial.params)])
    while most and (trial := trials.start()) is not None:
        most -= 1
        trials.tell(trial, TrialState.COMPLETE, [objective(trial.params)])


def listed(trials: Trials) -> list[dict[str, Any]]:
    return [trial.params for trial in trials.all]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_a_search_that_is_cut_off_anywhere_proposes_the_same_list(sampler: str, tmp_path: Path) -> None:
    trials = 12 if sampler == "gp" else 14
    search = a_search(sampler=sampler, trials=trials)
    whole = trials_of(search, tmp_path / "whole")
    driven(whole)
    for cut in (11,) if sampler == "gp" else (1, 5, 11):
        trials_of_first = trials_of(search, tmp_path / str(cut))
        driven(trials_of_first, most=cut)
        trials_of_first.start()  # proposed and never ended
        again = trials_of(search, tmp_path / str(cut))
        driven(again)
        assert listed(again) == listed(whole)
    assert len({repr(params) for params in listed(whole)}) == trials


def test_tpe_beats_random_on_a_known_optimum() -> None:
    found: dict[str, list[float]] = {"tpe": [], "random": []}
    for sampler, best in found.items():
        for seed in range(5):
            search = a_search(sampler=sampler, seed=seed, trials=40)
            known: list[FrozenTrial] = []
            for _ in range(search.trials):
                trial = propose(search, Space([ARM], [search.space]), "arm", known)
                assert trial is not None
                trial.number, trial.state, trial.values = len(known), TrialState.COMPLETE, [bowl(trial.params)]
                trial.datetime_complete = trial.datetime_start
                known.append(trial)
            best.append(max(trial.values[0] for trial in known))
    assert statistics.median(found["tpe"]) > statistics.median(found["random"])


def test_a_grid_is_tried_whole_and_each_point_once(tmp_path: Path) -> None:
    space = {
        "a.x": {"integers": [1, 3]},
        "a.y": {"choices": [{"dice": 1.0}, {"focal": 1.0}]},
        "a.z": {"steps": [0.5, 1.0, 0.25]},
    }
    trials = trials_of(a_search(sampler="grid", trials=100, space=space), tmp_path)
    driven(trials, lambda params: params["a.x"])
    assert len({repr(sorted(params.items())) for params in listed(trials)}) == len(listed(trials)) == 18
    assert trials.finished


def test_a_given_point_is_tried_first_and_what_it_leaves_out_is_drawn(tmp_path: Path) -> None:
    trials = trials_of(a_search(), tmp_path)
    journal = open_journal(tmp_path, create=True)
    assert journal is not None
    trials.open(journal, [{"target.optimizer.lr": 0.01}, {"target.loss.dice": 0.25}])
    driven(trials, most=3)
    assert listed(trials)[0]["target.optimizer.lr"] == 0.01
    assert listed(trials)[1]["target.loss.dice"] == 0.25


def test_more_trials_go_on_from_those_there_are(tmp_path: Path) -> None:
    driven(trials_of(a_search(trials=6), tmp_path))
    more = trials_of(a_search(trials=9), tmp_path)
    before = listed(more)
    driven(more)
    assert (len(before), len(listed(more))) == (6, 9)
    assert listed(more)[:6] == before


def test_fewer_trials_are_finished_at_once(tmp_path: Path) -> None:
    driven(trials_of(a_search(trials=6), tmp_path))
    fewer = trials_of(a_search(trials=4), tmp_path)
    assert fewer.finished
    assert fewer.start() is None


def test_old_trials_count_in_a_changed_space_where_they_still_fit(tmp_path: Path) -> None:
    old = trials_of(a_search(trials=10), tmp_path)
    driven(old)
    narrower = a_search(trials=15, space={"target.optimizer.lr": {"loguniform": [1e-5, 1e-1]},
                                          "target.loss.dice": {"uniform": [0.0, 1.0]}})  # fmt: skip
    fits = [params for params in listed(old) if params["target.loss.dice"] <= 1.0]
    new = trials_of(narrower, tmp_path)
    assert 0 < len(fits) < 10
    assert listed(new) == fits
    driven(new)
    assert new.settled == 15


def test_old_trials_get_the_stated_value_of_a_new_setting(tmp_path: Path) -> None:
    driven(trials_of(a_search(trials=4), tmp_path))
    wider = {
        **{name: one.model_dump(exclude_none=True) for name, one in LINE.items()},
        "target.l2": {"uniform": [0.0, 1.0]},
    }

    def same(params: Mapping[str, Any]) -> tuple[str, ...]:
        return (repr(sorted((name, value) for name, value in params.items() if name != "target.l2")),)

    for defaults, carried in (({}, 0), ({"target.l2": 0.0}, 4), ({"target.l2": 2.0}, 0)):
        search = a_search(trials=6, space=wider, defaults=defaults)
        space = Space([ARM], [search.space])
        found = Trials("arm", space.digest, search, space, same, open_journal(tmp_path, create=False))
        assert found.settled == carried


def test_a_trial_that_trained_something_else_does_not_count(tmp_path: Path) -> None:
    driven(trials_of(a_search(trials=4), tmp_path))
    search = a_search(
        trials=6, space={"target.optimizer.lr": {"loguniform": [1e-6, 1]}, "target.loss.dice": {"uniform": [0, 3]}}
    )
    space = Space([ARM], [search.space])
    journal = open_journal(tmp_path, create=False)
    assert Trials("arm", space.digest, search, space, lambda _: ("another",), journal).settled == 0


def test_reading_a_journal_writes_nothing(tmp_path: Path) -> None:
    search = a_search()
    space = Space([ARM], [search.space])
    assert open_journal(tmp_path, create=False) is None
    assert Trials("arm", "x", search, space, lambda _: (), None).all == []
    assert list(tmp_path.iterdir()) == []


def test_halving_lets_the_best_third_go_on(tmp_path: Path) -> None:
    search = a_search(prune={"successive_halving": {"grace_period": 1, "reduction_factor": 3}}, trials=30)
    trials, epochs = trials_of(search, tmp_path), 0
    while (trial := trials.start()) is not None:
        for epoch in range(1, 10):
            epochs += 1
            if trials.report(trial, epoch, bowl(trial.params) - 1 / epoch):
                trials.tell(trial, TrialState.PRUNED, [bowl(trial.params)])
                break
        else:
            trials.tell(trial, TrialState.COMPLETE, [bowl(trial.params)])
    assert epochs <= 30 * 9 / 2
    best = max(listed(trials), key=bowl)
    assert trials.complete[0].params == best


def test_a_combination_that_is_excluded_is_never_proposed() -> None:
    rows = [
        {"architecture": a, "backbone": b, "pathway": p}
        for a in ("x", "y", "z") for b in ("1", "2", "3", "4") for p in ("n", "c", "d", "e", "f")
        if (a, b) != ("x", "1") and (a, p) != ("y", "d") and (b, p) != ("4", "f")
    ]  # fmt: skip
    settings = {f"target.{name}": Parameter(uniform=(0.0, 1.0)) for name in "abcde"}
    further = {"classify.lr": Parameter(loguniform=(1e-4, 1.0))}
    space = Space(rows, [settings | further if row["pathway"] == "c" else settings for row in rows])
    known: list[FrozenTrial] = []
    for sampler, count in (("random", 200), ("tpe", 60)):
        search = a_search(sampler=sampler, scope="study", trials=1000)
        for number in range(count):
            trial = propose(search, space, "all", known if sampler == "tpe" else known[:number])
            assert trial is not None
            drawn = {name: trial.params[name] for name in ("architecture", "backbone", "pathway")}
            assert drawn in rows
            assert ("classify.lr" in trial.params) == (drawn["pathway"] == "c")
            if sampler == "tpe":
                trial.number, trial.state, trial.values = len(known), TrialState.COMPLETE, [trial.params["target.a"]]
                trial.datetime_complete = trial.datetime_start
                known.append(trial)


def test_nsga2_keeps_its_generations_in_the_journal(tmp_path: Path) -> None:
    search = a_search(sampler="nsga2", metric=["val/mean_iou", "parameters"], trials=60)
    trials = trials_of(search, tmp_path)
    while (trial := trials.start()) is not None:
        trials.tell(trial, TrialState.COMPLETE, [bowl(trial.params), trial.params["target.loss.dice"]])
    generations = {trial.system_attrs["NSGAIISampler:generation"] for trial in trials.all}
    assert generations == {0, 1}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"uniform": [1, 0]}, "smaller end first"),
        ({"loguniform": [0, 1]}, "above 0"),
        ({"integers": [1, 2], "uniform": [0, 1]}, "exactly one"),
        ({}, "exactly one"),
        ({"steps": [0, 1, 0]}, "above 0"),
        ({"choices": [1, 1]}, "each once"),
    ],
)
def test_a_range_that_is_none_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Parameter.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nested": True, "reserve": 0.3}, "one of them"),
        ({"metric": ["val/mean_iou", "seconds"], "sampler": "nsga2", "prune": {"median": {}}}, "one metric"),
        ({"sampler": "nsga2"}, "several"),
        ({"metric": ["val/mean_iou", "seconds"]}, "nsga2, random, grid"),
        ({"sampler": "grid"}, "continuous"),
        ({"space": {}}, "at least one"),
        ({"metric": "parameters", "prune": {"median": {}}}, "no epoch reports"),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        a_search(**changes)


def test_a_choice_comes_back_as_the_file_spells_it() -> None:
    losses = Parameter(choices=({"dice": 1.0}, {"focal": 2.0}, None, True, 3))
    stored = distribution(losses).choices  # type: ignore[attr-defined]
    assert [decoded(losses, value) for value in stored] == [{"dice": 1.0}, {"focal": 2.0}, None, True, 3]
