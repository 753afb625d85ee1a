"""A study with a search: what is planned, what is tried, what is compared after it. Without Ray."""

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from cluster.protocol import NewStages, StageOutcome
from datasets.splits.assignment import reserved
from study.errors import ConfigError
from study.monitoring.plan_summary import summary, summary_text
from study.search.arm_search import ArmSearches
from study.search.controller import SearchController
from study.search.journal import journal_file
from study.search.load import load_study
from study.search.table import search_rows, search_table
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.oom import too_large
from tests.support.own_data import write_own_data
from tests.support.pictures import save
from tests.support.searched import Cut, planned, run_here, searched, searches_of

LR = "target.optimizer.lr"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ran(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ArmSearches, Path]:
    storage = tmp_path_factory.mktemp("ran")
    return run_here(searched(), storage, cache), storage


def trials_of(searches: ArmSearches) -> list[list[FrozenTrial]]:
    return [arm_search.trials.all for arm_search in searches.all]


def told(searches: ArmSearches) -> list[list[tuple[Any, ...]]]:
    return [[(trial.state, trial.params, trial.values) for trial in trials] for trials in trials_of(searches)]


def test_what_a_search_decides_waits_and_the_rest_is_planned(cache: Path, tmp_path: Path) -> None:
    searches = searches_of(searched(), tmp_path, cache)
    counts = summary(searches.plan, Store(tmp_path), cache, searches)
    assert counts["stages"] == {"naive": 12, "unique": 9, "finished": 0, "to_run": 0, "after_search": 8}
    assert counts["search"]["trials"] == 6
    assert (counts["arms"], counts["cells"], counts["replicates"]) == (2, 4, 8)
    assert "2 searches, 0 finished; 0 of 6 trials" in summary_text(counts)


def test_planning_writes_nothing(cache: Path, tmp_path: Path) -> None:
    planned(searched(), tmp_path / "runs", cache)
    assert not (tmp_path / "runs").exists()


def test_an_arm_that_no_setting_touches_is_planned_at_once(cache: Path, tmp_path: Path) -> None:
    document = searched(space={"classify.optimizer.lr": {"loguniform": [1e-4, 1e-1]}})
    plan = planned(document, tmp_path, cache)
    assert [plan.arms[number].factors["pathway"] for number in plan.graph.waiting] == ["one_step"]
    assert {plan.arms[one.arm].factors["pathway"] for one in plan.replicates} == {"none"}


def test_every_arm_gets_its_trials_and_is_compared_with_its_best(ran: tuple[ArmSearches, Path]) -> None:
    searches, _ = ran
    plan = searches.plan
    for arm, trials in enumerate(trials_of(searches)):
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
        best = max(trials, key=lambda trial: trial.values[0])
        rows = [one for one in plan.replicates if one.arm == arm]
        assert len(rows) == 4
        assert {plan.nodes[one.chain[-1]].step.settings.optimizer.lr for one in rows} == {best.params[LR]}


def test_planning_again_finds_nothing_to_do(ran: tuple[ArmSearches, Path], cache: Path) -> None:
    plan, storage = ran[0].plan, ran[1]
    again, searches = load_study(searched(), file="searched.yaml", cache=cache, storage=storage)
    assert again.nodes.keys() == plan.nodes.keys()
    counts = summary(again, Store(storage), cache, searches)
    assert (counts["stages"]["to_run"], counts["stages"]["after_search"]) == (0, 0)


def test_candidates_read_the_reserve_alone_and_share_what_is_before_it(ran: tuple[ArmSearches, Path]) -> None:
    plan = ran[0].plan
    view = plan.views[plan.target]
    own = reserved(view.index, view.settings, "masks", 0.4)
    readings = [
        view.stage_rows(node.selection) for node in plan.candidates.values() if node.selection.data == plan.target
    ]
    read = {row for reading in readings for row in (*reading.train, *reading.validation, *reading.unlabelled)}
    assert {view.index.patients[row] for row in read} == own
    classifiers = {name for name, node in plan.candidates.items() if node.step.stage == "classify"}
    assert len(classifiers) == 1
    assert classifiers <= plan.nodes.keys()


def test_the_table_tells_trials_budget_and_best(ran: tuple[ArmSearches, Path]) -> None:
    folder = Store(ran[1]).study("searched")
    rows = search_rows(folder)
    assert len(rows) == 6
    assert sum(row["best"] for row in rows) == 2
    assert (
        len(
            {
                sum(row["image_epochs"] for row in rows if row["search"] == name)
                for name in {row["search"] for row in rows}
            }
        )
        == 1
    )
    assert "| 3 | 3 | 0 | 0 |" in search_table(folder, "md")
    assert len(json.loads(search_table(folder, "json"))) == 6
    assert len(search_table(folder, "csv").splitlines()) == 7
    with pytest.raises(ConfigError, match="md, csv, json"):
        search_table(folder, "latex")


def _keep(seen: list[tuple[str, int]], name: str, epoch: int) -> None:
    seen.append((name, epoch))


def test_a_killed_search_goes_on_as_if_it_had_not_been(
    ran: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    for cut in (5,):
        seen: list[tuple[str, int]] = []

        def kill(name: str, epoch: int, seen: list[tuple[str, int]] = seen, cut: int = cut) -> None:
            _keep(seen, name, epoch)
            if len(seen) == cut:
                raise Cut

        storage = tmp_path / str(cut)
        with pytest.raises(Cut):
            run_here(searched(), storage, cache, before=kill)
        after: list[tuple[str, int]] = []
        again = run_here(searched(), storage, cache, before=partial(_keep, after))
        assert told(again) == told(ran[0])
        assert again.plan.nodes.keys() == ran[0].plan.nodes.keys()
        assert not set(seen[: cut - 1]) & set(after), "an epoch that was saved is not trained again"


@pytest.mark.slow
def test_a_search_killed_at_five_random_moments_ends_as_one_left_alone(
    ran: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    cuts = [random.randrange(1, 9) for _ in range(5)]
    for cut in cuts:
        left = iter(range(cut, 0, -1))

        def kill(name: str, epoch: int, left: Iterator[int] = left) -> None:
            if next(left, 0) == 1:
                raise Cut

        with pytest.raises(Cut):
            run_here(searched(), tmp_path, cache, before=kill)
    again = run_here(searched(), tmp_path, cache)
    assert told(again) == told(ran[0]), f"cut after {cuts} reports"
    assert again.plan.nodes.keys() == ran[0].plan.nodes.keys()


def test_optuna_dashboard_opens_the_journal_as_it_is(ran: tuple[ArmSearches, Path]) -> None:
    journal = journal_file(Store(ran[1]).study("searched"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("optuna-dashboard"), journal, "--host", "127.0.0.1", "--port", str(port)]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline, answer = time.monotonic() + 60, None
        while answer is None and time.monotonic() < deadline:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/studies") as reply:
                answer = json.load(reply)
            time.sleep(0.1)
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert answer is not None
    shown = {study["study_name"] for study in answer["study_summaries"]}
    assert shown == {one.trials.study_name for one in ran[0].all}


def test_no_pixel_of_a_test_image_moves_what_is_chosen(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}, "compare.labelled_fraction": [1.0]}, reserve=0.6)
    del document["stages"]["classify"]
    choices = []
    for poisoned in (False, True):
        root = write_own_data(tmp_path / str(poisoned), size=32)
        document["data"] = {"hospital": {"source": "folder", "root": str(root)}}
        plan = planned(document, tmp_path / "none", cache)
        view = plan.views["hospital"]
        own = reserved(view.index, view.settings, "masks", 0.6)
        if poisoned:
            noise, count = np.random.default_rng(0), 0
            for row, patient in enumerate(view.index.patients):
                for file in root.glob(f"**/{Path(view.index.ids[row]).stem}.png") if patient not in own else ():
                    count += 1
                    save(noise.integers(0, 2, (32, 32), dtype=np.uint8) * 255, file)
            assert count > 20
        searches = run_here(document, tmp_path / f"runs-{poisoned}", cache)
        best = searches.best(searches.all[0], 0)
        assert best is not None
        choices.append((told(searches), best.params))
    assert choices[0] == choices[1]


def test_more_trials_go_on_and_only_a_changed_best_is_compared_anew(
    ran: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(ran[1], storage)
    more = searched(trials=5)
    waiting = searches_of(more, storage, cache)
    counts = summary(waiting.plan, Store(storage), cache, waiting)
    assert (counts["search"]["settled"], counts["search"]["cells_at_stake"]) == (6, 4)
    searches = run_here(more, storage, cache)
    for before, after in zip(told(ran[0]), told(searches), strict=True):
        assert after[:3] == before
        assert len(after) == 5


def test_a_stage_that_changed_makes_old_trials_worthless(ran: tuple[ArmSearches, Path], cache: Path) -> None:
    changed = searches_of(searched({"stages.segment.epochs": 3}), ran[1], cache)
    assert [len(trials) for trials in trials_of(changed)] == [0, 0]
    same = searches_of(searched({"stages.segment.optimizer": {"lr": 0.5}}), ran[1], cache)
    assert [len(trials) for trials in trials_of(same)] == [3, 3], (
        "the file's own value of what is searched plays no part"
    )


def test_old_trials_count_in_a_wider_range_with_a_new_setting(ran: tuple[ArmSearches, Path], cache: Path) -> None:
    space = {LR: {"loguniform": [1e-5, 1e-1]}, "target.l2": {"uniform": [0.0, 1e-3]}}
    searches = searches_of(searched(space=space, defaults={"target.l2": 0.0}), ran[1], cache)
    assert [len(trials) for trials in trials_of(searches)] == [3, 3]
    searches = searches_of(searched(space=space, defaults={"target.l2": 1e-4}), ran[1], cache)
    assert [len(trials) for trials in trials_of(searches)] == [0, 0], "they did not train with that value"


def test_pruned_candidates_leave_nothing_and_count_as_trials(cache: Path, tmp_path: Path) -> None:
    changes = {"pathways": {"none": ["segment"]}, "stages.segment.epochs": 4, "compare.labelled_fraction": [1.0]}
    prune = {"successive_halving": {"grace_period": 1, "reduction_factor": 2}}
    document = searched(changes, trials=5, prune=prune)
    searches = run_here(document, tmp_path, cache)
    (trials,) = trials_of(searches)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert len(trials) == 5
    assert pruned
    store = Store(tmp_path)
    for trial in pruned:
        assert not store.is_finished(trial.user_attrs["digest"])
        assert not store.work(trial.user_attrs["digest"]).exists()


def test_a_candidate_that_diverges_is_told_as_failed_with_its_reason(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}}, sampler="grid", trials=2,
                        space={LR: {"choices": [1e-3, 1e30]}})  # fmt: skip
    searches = run_here(document, tmp_path, cache)
    (trials,) = trials_of(searches)
    failed = {trial.params[LR]: trial for trial in trials}[1e30]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["reason"].startswith("Diverged: the training loss is")
    assert len(searches.plan.replicates) == 4


def test_a_search_in_which_all_fails_says_so_and_compares_nothing(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}}, trials=2, space={LR: {"uniform": [1e29, 1e30]}})
    searches = run_here(document, tmp_path, cache)
    assert searches.arms_without_result == ["unet / tu-lcnet_050 / random / none"]
    assert not searches.plan.replicates


def test_a_nested_search_looks_at_no_test_case_of_its_fold(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.labelled_fraction": [1.0], "pathways": {"none": ["segment"]}}, nested=True, trials=2)
    del document["search"]["reserve"]
    searches = run_here(document, tmp_path, cache)
    view = searches.plan.views[searches.plan.target]
    assert [one.fold for one in searches.all] == [0, 1]
    for one, replicate in zip(searches.all, searches.plan.replicates, strict=True):
        test = set(view.split(fold=replicate.fold, seed=0, labelled=1.0).test)
        for trial in one.trials.all:
            reading = view.stage_rows(searches.plan.node(trial.user_attrs["digest"]).selection)
            assert test.isdisjoint((*reading.train, *reading.validation))
        best = searches.best(one, 0)
        assert best is not None
        assert replicate.chain[-1] == best.user_attrs["digest"], "the best candidate is the comparison's own stage"


def test_one_search_over_all_arms_compares_the_top_and_its_baseline(cache: Path, tmp_path: Path) -> None:
    document = searched(
        {"compare.top": 1}, scope="study", trials=5, points=[{"pathway": "one_step"}, {"pathway": "none"}]
    )
    searches = run_here(document, tmp_path, cache)
    (trials,) = trials_of(searches)
    assert [trial.params["pathway"] for trial in trials[:2]] == ["one_step", "none"]
    best = max(trials, key=lambda trial: trial.values[0])
    compared = {searches.plan.arms[one.arm].factors["pathway"] for one in searches.plan.replicates}
    assert compared == {best.params["pathway"], "none"}


def test_an_earlier_study_gives_the_first_points(ran: tuple[ArmSearches, Path], cache: Path, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(ran[1], storage)
    document = searched({"stages.segment.epochs": 1}, warm_start="searched", trials=1) | {"name": "later"}
    searches = run_here(document, storage, cache)
    for before, after in zip(trials_of(ran[0]), trials_of(searches), strict=True):
        assert after[0].params == max(before, key=lambda trial: trial.values[0]).params


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"space": {"target.wings": {"uniform": [0, 1]}}}, "unknown key 'wings'"),
        ({"space": {"wings.lr": {"uniform": [0, 1]}}}, "unknown stage 'wings'"),
        ({"space": {"target": {"choices": [1]}}}, "a path into it"),
        ({"space": {"target.data": {"choices": ["clinic"]}}}, "decides what is compared"),
        ({"space": {"classify.teacher.size": {"choices": [64]}}}, "decides what is compared"),
        ({"space": {"target.tta": {"choices": [[], ["flip"]]}}}, "changes neither training nor its validation"),
        ({"space": {LR: {"uniform": [-1.0, 1.0]}}}, "value -1.0 does not fit"),
        ({"space": {"image.size": {"choices": [32, 33]}}}, "value 33 does not fit"),
        ({"space": {"target.loss": {"choices": [{"mse": 1.0}]}}}, "does not fit"),
        ({"reserve": 0.05}, "too few validate"),
        ({"points": [{LR: 3.0}]}, "outside of search.space"),
        ({"defaults": {"target.l2": 3.0}}, "unknown setting"),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused_in_one_line(
    changes: dict[str, object], told: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(searched(**changes), tmp_path, cache)
    assert [told in line and "allowed: " in line for line in str(refused.value).splitlines()] == [True]


def test_nested_search_with_moving_folds_is_refused(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.seeds": [0, 1]}, nested=True)
    del document["search"]["reserve"]
    with pytest.raises(ConfigError, match=r"split\.seed"):
        planned(document, tmp_path, cache)


def test_top_without_a_search_is_refused(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.top": 1})
    del document["search"]
    with pytest.raises(ConfigError, match="without search"):
        planned(document, tmp_path, cache)


def test_what_is_compared_is_looked_for_again_only_when_something_ended(
    ran: tuple[ArmSearches, Path], cache: Path
) -> None:
    _, storage = ran
    looks: list[str] = []
    searches = searches_of(searched(), storage, cache)
    driver = SearchController(
        searches, Store(storage), new_stages=lambda *_: NewStages([], set()),
        compared=lambda: looks.append("once") or (), say=lambda _: None,
    )  # fmt: skip
    for _ in range(3):
        assert driver.next_stages(2) == ([], set())
    assert looks == ["once"]
    driver.ended("a stage", StageOutcome(status="done"))
    for _ in range(3):
        driver.next_stages(2)
    assert looks == ["once", "once"]


def test_out_of_memory_names_a_batch_that_fits(cache: Path, tmp_path: Path) -> None:
    plan = planned(searched(), tmp_path, cache)
    around = RuntimeContext(storage=tmp_path, cache=cache, cpus=1, checkpoint=plan.spec.checkpoint)
    for name, node in plan.candidates.items():
        error = torch.OutOfMemoryError("in another process")
        told = too_large(stage_job(plan, plan.node(name)), around, torch.device("cpu"), error)
        size = node.step.settings.batch_size
        assert told.startswith(f"out of memory with stages.{node.step.stage}.batch_size {size}; allowed: ")
        assert told.endswith(f"batch_size {size // 2} fits; set that, or accumulate 2")
        several = replace(around, workers=2)
        told = too_large(stage_job(plan, plan.node(name)), several, torch.device("cpu"), error)
        assert told.endswith("; lower it, or image.size, or take more workers")
