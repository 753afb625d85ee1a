"""Search spaces, samplers, pruning and the journal, with an analytic objective instead of training."""

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

SPACE = {"target.optimizer.lr": Parameter(loguniform=(1e-5, 1e-1)), "target.loss.dice": Parameter(uniform=(0.0, 2.0))}
ARM = {"architecture": "unet"}


def quadratic(params: dict[str, Any]) -> float:
    """Concave objective with maximum 0 at a learning rate of 1e-3 and a loss weight of 0.7."""
    import math

    return -((math.log10(params["target.optimizer.lr"]) + 3) ** 2) - (params["target.loss.dice"] - 0.7) ** 2


def make_search(**changes: object) -> Search:
    return Search.model_validate(
        {"trials": 12, "space": {name: parameter.model_dump(exclude_none=True) for name, parameter in SPACE.items()}}
        | changes
    )


def open_trials(search: Search, folder: Path, space: Space | None = None, name: str = "arm") -> Trials:
    space = space or Space([ARM], [search.space])
    journal = open_journal(folder, create=True)
    assert journal is not None
    trials = Trials(name, space.digest, search, space, lambda params: (repr(sorted(params.items())),), journal)
    trials.open(journal)
    return trials


def run_trials(
    trials: Trials, objective: Callable[[dict[str, Any]], float] = quadratic, *, max_trials: int = 10_000
) -> None:
    """Run a search one trial at a time, starting with trials that are still running."""
    for trial in trials.running():
        trials.tell(trial, TrialState.COMPLETE, [objective(trial.params)])
    while max_trials and (trial := trials.start()) is not None:
        max_trials -= 1
        trials.tell(trial, TrialState.COMPLETE, [objective(trial.params)])


def params_of(trials: Trials) -> list[dict[str, Any]]:
    return [trial.params for trial in trials.all]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_resumed_search_proposes_the_same_trials_as_an_uninterrupted_one(sampler: str, tmp_path: Path) -> None:
    budget = 12 if sampler == "gp" else 14
    search = make_search(sampler=sampler, trials=budget)
    uninterrupted = open_trials(search, tmp_path / "uninterrupted")
    run_trials(uninterrupted)
    for count in (11,) if sampler == "gp" else (1, 5, 11):
        interrupted = open_trials(search, tmp_path / str(count))
        run_trials(interrupted, max_trials=count)
        interrupted.start()  # proposed, never completed
        resumed = open_trials(search, tmp_path / str(count))
        run_trials(resumed)
        assert params_of(resumed) == params_of(uninterrupted)
    assert len({repr(params) for params in params_of(uninterrupted)}) == budget


def test_tpe_beats_random_on_a_known_optimum() -> None:
    best_values: dict[str, list[float]] = {"tpe": [], "random": []}
    for sampler, values in best_values.items():
        for seed in range(5):
            search = make_search(sampler=sampler, seed=seed, trials=40)
            trials: list[FrozenTrial] = []
            for _ in range(search.trials):
                trial = propose(search, Space([ARM], [search.space]), "arm", trials)
                assert trial is not None
                trial.number, trial.state, trial.values = len(trials), TrialState.COMPLETE, [quadratic(trial.params)]
                trial.datetime_complete = trial.datetime_start
                trials.append(trial)
            values.append(max(trial.values[0] for trial in trials))
    assert statistics.median(best_values["tpe"]) > statistics.median(best_values["random"])


def test_grid_search_tries_every_point_once(tmp_path: Path) -> None:
    space = {
        "a.x": {"integers": [1, 3]},
        "a.y": {"choices": [{"dice": 1.0}, {"focal": 1.0}]},
        "a.z": {"steps": [0.5, 1.0, 0.25]},
    }
    trials = open_trials(make_search(sampler="grid", trials=100, space=space), tmp_path)
    run_trials(trials, lambda params: params["a.x"])
    assert len({repr(sorted(params.items())) for params in params_of(trials)}) == len(params_of(trials)) == 18
    assert trials.finished


def test_given_points_are_tried_first_and_missing_values_are_sampled(tmp_path: Path) -> None:
    trials = open_trials(make_search(), tmp_path)
    journal = open_journal(tmp_path, create=True)
    assert journal is not None
    trials.open(journal, [{"target.optimizer.lr": 0.01}, {"target.loss.dice": 0.25}])
    run_trials(trials, max_trials=3)
    assert params_of(trials)[0]["target.optimizer.lr"] == 0.01
    assert params_of(trials)[1]["target.loss.dice"] == 0.25


def test_search_with_more_trials_continues_from_existing_ones(tmp_path: Path) -> None:
    run_trials(open_trials(make_search(trials=6), tmp_path))
    extended = open_trials(make_search(trials=9), tmp_path)
    before = params_of(extended)
    run_trials(extended)
    assert (len(before), len(params_of(extended))) == (6, 9)
    assert params_of(extended)[:6] == before


def test_search_with_fewer_trials_is_finished(tmp_path: Path) -> None:
    run_trials(open_trials(make_search(trials=6), tmp_path))
    fewer = open_trials(make_search(trials=4), tmp_path)
    assert fewer.finished
    assert fewer.start() is None


def test_trials_that_fit_a_changed_space_are_reused(tmp_path: Path) -> None:
    old = open_trials(make_search(trials=10), tmp_path)
    run_trials(old)
    narrower = make_search(trials=15, space={"target.optimizer.lr": {"loguniform": [1e-5, 1e-1]},
                                          "target.loss.dice": {"uniform": [0.0, 1.0]}})  # fmt: skip
    fits = [params for params in params_of(old) if params["target.loss.dice"] <= 1.0]
    new = open_trials(narrower, tmp_path)
    assert 0 < len(fits) < 10
    assert params_of(new) == fits
    run_trials(new)
    assert new.settled == 15


def test_trials_are_reused_with_the_default_of_a_new_setting(tmp_path: Path) -> None:
    run_trials(open_trials(make_search(trials=4), tmp_path))
    wider = {
        **{name: parameter.model_dump(exclude_none=True) for name, parameter in SPACE.items()},
        "target.l2": {"uniform": [0.0, 1.0]},
    }

    def stages_without_l2(params: Mapping[str, Any]) -> tuple[str, ...]:
        return (repr(sorted((name, value) for name, value in params.items() if name != "target.l2")),)

    for defaults, expected in (({}, 0), ({"target.l2": 0.0}, 4), ({"target.l2": 2.0}, 0)):
        search = make_search(trials=6, space=wider, defaults=defaults)
        space = Space([ARM], [search.space])
        trials = Trials("arm", space.digest, search, space, stages_without_l2, open_journal(tmp_path, create=False))
        assert trials.settled == expected


def test_trials_of_different_stages_are_not_reused(tmp_path: Path) -> None:
    run_trials(open_trials(make_search(trials=4), tmp_path))
    search = make_search(
        trials=6, space={"target.optimizer.lr": {"loguniform": [1e-6, 1]}, "target.loss.dice": {"uniform": [0, 3]}}
    )
    space = Space([ARM], [search.space])
    journal = open_journal(tmp_path, create=False)
    assert Trials("arm", space.digest, search, space, lambda _: ("another",), journal).settled == 0


def test_reading_a_journal_writes_nothing(tmp_path: Path) -> None:
    search = make_search()
    space = Space([ARM], [search.space])
    assert open_journal(tmp_path, create=False) is None
    assert Trials("arm", "x", search, space, lambda _: (), None).all == []
    assert list(tmp_path.iterdir()) == []


def test_successive_halving_continues_the_best_third(tmp_path: Path) -> None:
    search = make_search(prune={"successive_halving": {"grace_period": 1, "reduction_factor": 3}}, trials=30)
    trials, epochs = open_trials(search, tmp_path), 0
    while (trial := trials.start()) is not None:
        for epoch in range(1, 10):
            epochs += 1
            if trials.report(trial, epoch, quadratic(trial.params) - 1 / epoch):
                trials.tell(trial, TrialState.PRUNED, [quadratic(trial.params)])
                break
        else:
            trials.tell(trial, TrialState.COMPLETE, [quadratic(trial.params)])
    assert epochs <= 30 * 9 / 2
    best = max(params_of(trials), key=quadratic)
    assert trials.complete[0].params == best


def test_excluded_combinations_are_never_proposed() -> None:
    rows = [
        {"architecture": a, "backbone": b, "pathway": p}
        for a in ("x", "y", "z") for b in ("1", "2", "3", "4") for p in ("n", "c", "d", "e", "f")
        if (a, b) != ("x", "1") and (a, p) != ("y", "d") and (b, p) != ("4", "f")
    ]  # fmt: skip
    settings = {f"target.{name}": Parameter(uniform=(0.0, 1.0)) for name in "abcde"}
    pretraining_settings = {"classify.lr": Parameter(loguniform=(1e-4, 1.0))}
    space = Space(rows, [settings | pretraining_settings if row["pathway"] == "c" else settings for row in rows])
    completed: list[FrozenTrial] = []
    for sampler, count in (("random", 200), ("tpe", 60)):
        search = make_search(sampler=sampler, scope="study", trials=1000)
        for number in range(count):
            trial = propose(search, space, "all", completed if sampler == "tpe" else completed[:number])
            assert trial is not None
            combination = {name: trial.params[name] for name in ("architecture", "backbone", "pathway")}
            assert combination in rows
            assert ("classify.lr" in trial.params) == (combination["pathway"] == "c")
            if sampler == "tpe":
                trial.number, trial.state, trial.values = (
                    len(completed),
                    TrialState.COMPLETE,
                    [trial.params["target.a"]],
                )
                trial.datetime_complete = trial.datetime_start
                completed.append(trial)


def test_nsga2_stores_generations_in_the_journal(tmp_path: Path) -> None:
    search = make_search(sampler="nsga2", metric=["val/mean_iou", "parameters"], trials=60)
    trials = open_trials(search, tmp_path)
    while (trial := trials.start()) is not None:
        trials.tell(trial, TrialState.COMPLETE, [quadratic(trial.params), trial.params["target.loss.dice"]])
    generations = {trial.system_attrs["NSGAIISampler:generation"] for trial in trials.all}
    assert generations == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uniform": [1, 0]}, "smaller end first"),
        ({"loguniform": [0, 1]}, "above 0"),
        ({"integers": [1, 2], "uniform": [0, 1]}, "exactly one"),
        ({}, "exactly one"),
        ({"steps": [0, 1, 0]}, "above 0"),
        ({"choices": [1, 1]}, "each once"),
    ],
)
def test_invalid_parameter_is_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Parameter.model_validate(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_contradictory_search_is_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_search(**changes)


def test_decoded_choices_equal_those_of_the_study_file() -> None:
    losses = Parameter(choices=({"dice": 1.0}, {"focal": 2.0}, None, True, 3))
    stored = distribution(losses).choices  # type: ignore[attr-defined]
    assert [decoded(losses, value) for value in stored] == [{"dice": 1.0}, {"focal": 2.0}, None, True, 3]
