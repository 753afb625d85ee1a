"""Studies with a search, run without Ray: planned stages, trials and comparisons."""

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
from study.planning.graph import image_epochs
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
def completed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ArmSearches, Path]:
    storage = tmp_path_factory.mktemp("completed")
    return run_here(searched(), storage, cache), storage


def trials_of(searches: ArmSearches) -> list[list[FrozenTrial]]:
    return [arm_search.trials.all for arm_search in searches.all]


def trial_results(searches: ArmSearches) -> list[list[tuple[Any, ...]]]:
    return [[(trial.state, trial.params, trial.values) for trial in trials] for trials in trials_of(searches)]


def test_stages_that_depend_on_the_search_are_planned_after_it(cache: Path, tmp_path: Path) -> None:
    searches = searches_of(searched(), tmp_path, cache)
    counts = summary(searches.plan, Store(tmp_path), cache, searches)
    assert counts["stages"] == {"naive": 12, "unique": 9, "finished": 0, "to_run": 0, "after_search": 8}
    assert counts["search"]["trials"] == 6
    assert (counts["arms"], counts["cells"], counts["replicates"]) == (2, 4, 8)
    assert "2 searches, 0 finished; 0 of 6 trials" in summary_text(counts)


def test_planning_writes_nothing(cache: Path, tmp_path: Path) -> None:
    planned(searched(), tmp_path / "runs", cache)
    assert not (tmp_path / "runs").exists()


def test_arm_without_searched_settings_is_planned_immediately(cache: Path, tmp_path: Path) -> None:
    document = searched(space={"classify.optimizer.lr": {"loguniform": [1e-4, 1e-1]}})
    plan = planned(document, tmp_path, cache)
    assert [plan.arms[number].factors["pathway"] for number in plan.graph.waiting] == ["one_step"]
    assert {plan.arms[replicate.arm].factors["pathway"] for replicate in plan.replicates} == {"none"}


def test_every_arm_is_compared_with_the_settings_of_its_best_trial(completed: tuple[ArmSearches, Path]) -> None:
    searches, _ = completed
    plan = searches.plan
    for arm, trials in enumerate(trials_of(searches)):
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
        best = max(trials, key=lambda trial: trial.values[0])
        replicates = [replicate for replicate in plan.replicates if replicate.arm == arm]
        assert len(replicates) == 4
        assert {plan.nodes[replicate.chain[-1]].step.settings.optimizer.lr for replicate in replicates} == {
            best.params[LR]
        }


def test_plan_of_a_finished_search_has_nothing_to_run(completed: tuple[ArmSearches, Path], cache: Path) -> None:
    plan, storage = completed[0].plan, completed[1]
    replanned, searches = load_study(searched(), file="searched.yaml", cache=cache, storage=storage)
    assert replanned.nodes.keys() == plan.nodes.keys()
    counts = summary(replanned, Store(storage), cache, searches)
    assert (counts["stages"]["to_run"], counts["stages"]["after_search"]) == (0, 0)


def test_candidates_read_only_the_reserve_and_share_pretraining_stages(completed: tuple[ArmSearches, Path]) -> None:
    plan = completed[0].plan
    view = plan.views[plan.target]
    reserve = reserved(view.index, view.settings, "masks", 0.4)
    stage_rows = [
        view.stage_rows(node.selection) for node in plan.candidates.values() if node.selection.data == plan.target
    ]
    read = {row for rows in stage_rows for row in (*rows.train, *rows.validation, *rows.unlabelled)}
    assert {view.index.patients[row] for row in read} == reserve
    classifiers = {name for name, node in plan.candidates.items() if node.step.stage == "classify"}
    assert len(classifiers) == 1
    assert classifiers <= plan.nodes.keys()


def test_search_table_contains_trials_budget_and_best(completed: tuple[ArmSearches, Path]) -> None:
    folder = Store(completed[1]).study("searched")
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


def test_interrupted_search_resumes_with_the_same_results(
    completed: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    reports = 5
    before: list[tuple[str, int]] = []
    after: list[tuple[str, int]] = []

    def interrupt(name: str, epoch: int) -> None:
        before.append((name, epoch))
        if len(before) == reports:
            raise Cut

    with pytest.raises(Cut):
        run_here(searched(), tmp_path, cache, before=interrupt)
    resumed = run_here(searched(), tmp_path, cache, before=lambda name, epoch: after.append((name, epoch)))
    assert trial_results(resumed) == trial_results(completed[0])
    assert resumed.plan.nodes.keys() == completed[0].plan.nodes.keys()
    assert not set(before[: reports - 1]) & set(after), "checkpointed epochs are not trained again"


@pytest.mark.slow
def test_search_interrupted_at_random_reports_resumes_with_the_same_results(
    completed: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    report_counts = [random.randrange(1, 9) for _ in range(5)]
    for count in report_counts:
        countdown = iter(range(count, 0, -1))

        def interrupt(name: str, epoch: int, countdown: Iterator[int] = countdown) -> None:
            if next(countdown, 0) == 1:
                raise Cut

        with pytest.raises(Cut):
            run_here(searched(), tmp_path, cache, before=interrupt)
    resumed = run_here(searched(), tmp_path, cache)
    assert trial_results(resumed) == trial_results(completed[0]), f"interrupted after {report_counts} reports"
    assert resumed.plan.nodes.keys() == completed[0].plan.nodes.keys()


def test_optuna_dashboard_opens_the_journal(completed: tuple[ArmSearches, Path]) -> None:
    journal = journal_file(Store(completed[1]).study("searched"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [Path(sys.executable).with_name("optuna-dashboard"), journal, "--host", "127.0.0.1", "--port", str(port)]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline, content = time.monotonic() + 60, None
        while content is None and time.monotonic() < deadline:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/studies") as response:
                content = json.load(response)
            time.sleep(0.1)
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert content is not None
    study_names = {study["study_name"] for study in content["study_summaries"]}
    assert study_names == {arm_search.trials.study_name for arm_search in completed[0].all}


def test_pixels_of_test_images_do_not_affect_the_search(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}, "compare.labelled_fraction": [1.0]}, reserve=0.6)
    del document["stages"]["classify"]
    results = []
    for altered in (False, True):
        root = write_own_data(tmp_path / str(altered), size=32)
        document["data"] = {"hospital": {"source": "folder", "root": str(root)}}
        plan = planned(document, tmp_path / "none", cache)
        view = plan.views["hospital"]
        reserve = reserved(view.index, view.settings, "masks", 0.6)
        if altered:
            noise, count = np.random.default_rng(0), 0
            for row, patient in enumerate(view.index.patients):
                for file in root.glob(f"**/{Path(view.index.ids[row]).stem}.png") if patient not in reserve else ():
                    count += 1
                    save(noise.integers(0, 2, (32, 32), dtype=np.uint8) * 255, file)
            assert count > 20
        searches = run_here(document, tmp_path / f"runs-{altered}", cache)
        best = searches.best(searches.all[0], 0)
        assert best is not None
        results.append((trial_results(searches), best.params))
    assert results[0] == results[1]


def test_search_with_more_trials_continues_and_only_a_changed_best_is_compared_again(
    completed: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(completed[1], storage)
    document = searched(trials=5)
    planned_searches = searches_of(document, storage, cache)
    counts = summary(planned_searches.plan, Store(storage), cache, planned_searches)
    assert (counts["search"]["settled"], counts["search"]["cells_at_stake"]) == (6, 4)
    searches = run_here(document, storage, cache)
    for before, after in zip(trial_results(completed[0]), trial_results(searches), strict=True):
        assert after[:3] == before
        assert len(after) == 5


def test_trials_of_a_changed_stage_are_not_reused(completed: tuple[ArmSearches, Path], cache: Path) -> None:
    changed_epochs = searches_of(searched({"stages.segment.epochs": 3}), completed[1], cache)
    assert [len(trials) for trials in trials_of(changed_epochs)] == [0, 0]
    changed_lr = searches_of(searched({"stages.segment.optimizer": {"lr": 0.5}}), completed[1], cache)
    assert [len(trials) for trials in trials_of(changed_lr)] == [3, 3], (
        "the value of a searched setting in the file does not matter"
    )


def test_trials_are_reused_in_a_wider_range_with_a_new_setting(
    completed: tuple[ArmSearches, Path], cache: Path
) -> None:
    space = {LR: {"loguniform": [1e-5, 1e-1]}, "target.l2": {"uniform": [0.0, 1e-3]}}
    searches = searches_of(searched(space=space, defaults={"target.l2": 0.0}), completed[1], cache)
    assert [len(trials) for trials in trials_of(searches)] == [3, 3]
    searches = searches_of(searched(space=space, defaults={"target.l2": 1e-4}), completed[1], cache)
    assert [len(trials) for trials in trials_of(searches)] == [0, 0], "the trials were not trained with that value"


def test_pruned_candidates_are_not_stored_and_count_as_trials(cache: Path, tmp_path: Path) -> None:
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


def test_diverged_candidate_is_recorded_as_failed_with_its_reason(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}}, sampler="grid", trials=2,
                        space={LR: {"choices": [1e-3, 1e30]}})  # fmt: skip
    searches = run_here(document, tmp_path, cache)
    (trials,) = trials_of(searches)
    failed = {trial.params[LR]: trial for trial in trials}[1e30]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["reason"].startswith("Diverged: the training loss is")
    assert len(searches.plan.replicates) == 4


def test_search_without_successful_trials_reports_arms_without_result(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["segment"]}}, trials=2, space={LR: {"uniform": [1e29, 1e30]}})
    searches = run_here(document, tmp_path, cache)
    assert searches.arms_without_result == ["unet / tu-lcnet_050 / random / none"]
    assert not searches.plan.replicates


def test_nested_search_reads_no_test_cases_of_its_fold(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.labelled_fraction": [1.0], "pathways": {"none": ["segment"]}}, nested=True, trials=2)
    del document["search"]["reserve"]
    searches = run_here(document, tmp_path, cache)
    view = searches.plan.views[searches.plan.target]
    assert [arm_search.fold for arm_search in searches.all] == [0, 1]
    for arm_search, replicate in zip(searches.all, searches.plan.replicates, strict=True):
        test_rows = set(view.split(fold=replicate.fold, seed=0, labelled=1.0).test)
        for trial in arm_search.trials.all:
            rows = view.stage_rows(searches.plan.node(trial.user_attrs["digest"]).selection)
            assert test_rows.isdisjoint((*rows.train, *rows.validation))
        best = searches.best(arm_search, 0)
        assert best is not None
        assert replicate.chain[-1] == best.user_attrs["digest"], "the best candidate is the compared stage"


def test_joint_search_compares_the_best_arm_and_its_baseline(cache: Path, tmp_path: Path) -> None:
    document = searched(
        {"compare.top": 1}, scope="study", trials=5, points=[{"pathway": "one_step"}, {"pathway": "none"}]
    )
    searches = run_here(document, tmp_path, cache)
    (trials,) = trials_of(searches)
    assert [trial.params["pathway"] for trial in trials[:2]] == ["one_step", "none"]
    best = max(trials, key=lambda trial: trial.values[0])
    pathways = {searches.plan.arms[replicate.arm].factors["pathway"] for replicate in searches.plan.replicates}
    assert pathways == {best.params["pathway"], "none"}


def test_warm_start_tries_the_best_trials_of_an_earlier_study_first(
    completed: tuple[ArmSearches, Path], cache: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "runs"
    shutil.copytree(completed[1], storage)
    document = searched({"stages.segment.epochs": 1}, warm_start="searched", trials=1) | {"name": "later"}
    searches = run_here(document, storage, cache)
    for before, after in zip(trials_of(completed[0]), trials_of(searches), strict=True):
        assert after[0].params == max(before, key=lambda trial: trial.values[0]).params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"target.wings": {"uniform": [0, 1]}}}, "unknown key 'wings'"),
        ({"space": {"wings.lr": {"uniform": [0, 1]}}}, "unknown stage 'wings'"),
        ({"space": {"target": {"choices": [1]}}}, "a path into it"),
        ({"space": {"target.data": {"choices": ["clinic"]}}}, "decides what is compared"),
        ({"space": {"classify.teacher.size": {"choices": [64]}}}, "decides what is compared"),
        ({"space": {"target.pseudo_labels.ensemble": {"choices": [1, 3]}}}, "decides what is compared"),
        ({"space": {"target.tta": {"choices": [[], ["flip"]]}}}, "changes neither training nor its validation"),
        ({"space": {LR: {"uniform": [-1.0, 1.0]}}}, "value -1.0 does not fit"),
        ({"space": {"image.size": {"choices": [32, 33]}}}, "value 33 does not fit"),
        ({"space": {"target.loss": {"choices": [{"mse": 1.0}]}}}, "does not fit"),
        ({"reserve": 0.05}, "too few validate"),
        ({"points": [{LR: 3.0}]}, "outside of search.space"),
        ({"defaults": {"target.l2": 3.0}}, "unknown setting"),
    ],
)  # fmt: skip
def test_invalid_search_is_rejected_in_one_line(
    changes: dict[str, object], message: str, cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        planned(searched(**changes), tmp_path, cache)
    assert [message in line and "allowed: " in line for line in str(error.value).splitlines()] == [True]


SEMI_SUPERVISED: dict[str, dict[str, object]] = {
    task: {
        "stages.segment": {"task": task, "data": "hospital", "epochs": 2, "batch_size": 4},
        "compare.labelled_fraction": [0.25, 0.5],
    }
    for task in ("adversarial", "consistency", "pseudo_labels")
}
SEMI_SUPERVISED["pseudo_labels"] |= {
    "stages.teacher": {"task": "segmentation", "data": "hospital", "epochs": 1, "batch_size": 4},
    "pathways": {"none": ["teacher", "segment"]}, "compare.baseline": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("consistency", "consistency.weight"),
        ("consistency", "consistency.strong.blur"),
        ("adversarial", "adversarial.lambda2"),
        ("pseudo_labels", "pseudo_labels.confidence"),
    ],
)
def test_settings_of_unlabelled_images_are_searched_where_trials_have_such_images(
    task: str, key: str, cache: Path, tmp_path: Path
) -> None:
    document = searched(SEMI_SUPERVISED[task], space={f"target.{key}": {"uniform": [0.1, 0.9]}})
    with pytest.raises(
        ConfigError, match=rf"{key}: .* reserve have no unlabelled images; allowed: .*; set nested: true"
    ):
        planned(document, tmp_path, cache)
    del document["search"]["reserve"]
    document["search"]["nested"] = True
    planned(document, tmp_path, cache)
    document["compare"]["labelled_fraction"] = [0.5, 1.0]
    with pytest.raises(ConfigError, match=r"largest amount of labels, have no unlabelled images"):
        planned(document, tmp_path, cache)


def test_settings_of_a_teacher_are_searched_where_trials_need_it(cache: Path, tmp_path: Path) -> None:
    student = ["teacher", {"stage": "segment", "carry": "none"}]
    fresh = {"pathways": {"none": student}}
    beside_teacher = {"pathways": {"none": ["teacher"], "self": student}}
    for changes, is_refused in [({}, False), (fresh, True), (beside_teacher, True)]:
        document = searched(
            {**SEMI_SUPERVISED["pseudo_labels"], **changes},
            space={"teacher.optimizer.lr": {"uniform": [0.1, 0.9]}},
        )
        if is_refused:
            message = (
                r"^.*search\.space\.teacher\.optimizer\.lr: has no effect on trials: nothing is carried to segment, "
                r"and trials on the reserve have no unlabelled images to label; allowed: settings of segment; "
                r"set nested: true in place of reserve$"
            )
            with pytest.raises(ConfigError, match=message):
                planned(document, tmp_path, cache)
            del document["search"]["reserve"]
            document["search"]["nested"] = True
        planned(document, tmp_path, cache)


@pytest.mark.parametrize("task", SEMI_SUPERVISED)
def test_other_settings_of_such_stages_are_searched_with_a_warning(task: str, cache: Path, tmp_path: Path) -> None:
    keys = {"adversarial": "adversarial.lambda1", "consistency": "optimizer.lr", "pseudo_labels": "optimizer.lr"}
    document = searched(SEMI_SUPERVISED[task], space={f"target.{keys[task]}": {"uniform": [0.1, 0.9]}})
    warning = (
        "search: trials on the reserve have no unlabelled images, so the settings of segment are those for labelled "
        "images alone; to change this, set nested: true in place of reserve"
    )
    assert warning in planned(document, tmp_path, cache).warnings
    del document["search"]["reserve"]
    document["search"]["nested"] = True
    assert not [text for text in planned(document, tmp_path, cache).warnings if text.startswith("search:")]


@pytest.mark.parametrize(
    ("space", "changed"), [("teacher.optimizer.lr", ["teacher", "teacher", "teacher"]), ("segment.optimizer.lr", [])]
)
def test_a_candidate_costs_all_stages_that_the_search_changes(
    space: str, changed: list[str], cache: Path, tmp_path: Path
) -> None:
    document = searched(
        {**SEMI_SUPERVISED["pseudo_labels"], "stages.segment.pseudo_labels": {"ensemble": 3}},
        space={space: {"uniform": [0.1, 0.9]}}, nested=True,
    )  # fmt: skip
    del document["search"]["reserve"]
    searches = searches_of(document, tmp_path, cache)
    plan, arm_search = searches.plan, searches.all[0]
    chain = searches.planner.candidate(plan.arms[0], arm_search.fold)
    before = searches.stages_before(0, chain)
    assert [plan.node(stage).step.stage for stage in before] == changed
    assert set(before) <= set(plan.node(chain[-1]).teachers)
    counts = summary(plan, Store(tmp_path), cache, searches)["search"]
    epochs = sum(image_epochs(plan, plan.node(stage)) for stage in (*before, chain[-1]))
    assert counts["image_epochs"] == 2 * 3 * epochs


def test_the_cost_of_a_trial_includes_earlier_stages_that_the_search_changes(cache: Path, tmp_path: Path) -> None:
    document = searched({"pathways": {"none": ["classify", "segment"]}, "compare.baseline": {}}, trials=1,
                        space={"classify.optimizer.lr": {"loguniform": [1e-4, 1e-1]}})  # fmt: skip
    searches = run_here(document, tmp_path, cache)
    plan, store = searches.plan, Store(tmp_path)
    (row,), last = search_rows(store.study("searched")), searches.all[0].trials.all[0].user_attrs["digest"]
    parent = plan.node(last).parent
    assert parent is not None
    assert row["image_epochs"] == sum(image_epochs(plan, plan.node(digest)) for digest in (parent, last))
    assert row["seconds"] == pytest.approx(sum(store.manifest(digest)["seconds"] for digest in (parent, last)))


def test_nested_search_with_varying_folds_is_rejected(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.seeds": [0, 1]}, nested=True)
    del document["search"]["reserve"]
    with pytest.raises(ConfigError, match=r"split\.seed"):
        planned(document, tmp_path, cache)


def test_top_without_search_is_rejected(cache: Path, tmp_path: Path) -> None:
    document = searched({"compare.top": 1})
    del document["search"]
    with pytest.raises(ConfigError, match="without search"):
        planned(document, tmp_path, cache)


def test_comparisons_are_recomputed_only_after_a_stage_ended(completed: tuple[ArmSearches, Path], cache: Path) -> None:
    _, storage = completed
    calls: list[str] = []
    searches = searches_of(searched(), storage, cache)
    controller = SearchController(
        searches, Store(storage), new_stages=lambda *_: NewStages([], set()),
        compared=lambda: calls.append("compared") or (), say=lambda _: None,
    )  # fmt: skip
    for _ in range(3):
        assert controller.next_stages(2) == ([], set())
    assert calls == ["compared"]
    controller.ended("a stage", StageOutcome(status="done"))
    for _ in range(3):
        controller.next_stages(2)
    assert calls == ["compared", "compared"]


def test_out_of_memory_message_names_a_batch_size_that_fits(cache: Path, tmp_path: Path) -> None:
    plan = planned(searched(), tmp_path, cache)
    runtime = RuntimeContext(storage=tmp_path, cache=cache, cpus=1, checkpoint=plan.spec.checkpoint)
    for name, node in plan.candidates.items():
        error = torch.OutOfMemoryError("in another process")
        message = too_large(stage_job(plan, plan.node(name)), runtime, torch.device("cpu"), error)
        size = node.step.settings.batch_size
        assert message.startswith(f"out of memory with stages.{node.step.stage}.batch_size {size}; allowed: ")
        assert message.endswith(f"batch_size {size // 2} fits; set that, or accumulate 2")
        two_workers = replace(runtime, workers=2)
        message = too_large(stage_job(plan, plan.node(name)), two_workers, torch.device("cpu"), error)
        assert message.endswith("; lower it, or image.size, or take more workers")
