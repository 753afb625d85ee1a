"""The detectable differences that a plan reports."""

from pathlib import Path
from typing import Any

import pytest

from results.statistics.power import detectable_over_replicates, detectable_over_units
from study.analysis.detectable import alternatives, detectable, detectable_lines
from study.monitoring.plan_summary import summary, summary_text
from study.planning.graph import Plan
from study.store.store import Store
from tests.support.finished import finished
from tests.support.tiny import planned, tiny

BOTH = {"pathways": {"none": ["segment"], "longer": ["slow"]},
        "stages.slow": {"task": "segmentation", "data": "hospital", "steps": 48, "batch_size": 4}}  # fmt: skip


def entries_of(changes: dict[str, Any], folder: Path) -> tuple[Plan, list[dict[str, Any]]]:
    plan = planned(tiny(changes), folder / "cache")
    return plan, detectable(plan, Store(folder / "runs"))


def test_without_shared_pretraining_it_is_that_of_the_corrected_test(tmp_path: Path) -> None:
    _, entries = entries_of({**BOTH, "compare.folds": 4, "compare.seeds": [0, 1]}, tmp_path)
    assert [(entry["metric"], entry["unit"], entry["comparisons"]) for entry in entries] == [
        ("mean_iou", "fold and seed", 1), ("dice", "fold and seed", 1)
    ]  # fmt: skip
    assert entries[0]["sd_units"] == round(detectable_over_replicates(4, 2), 2)
    assert entries[0]["difference"] is None


def test_comparisons_of_a_family_count_every_arm_and_amount_of_labels(tmp_path: Path) -> None:
    changes = {**BOTH, "pathways.again": ["again"], "compare.labelled_fraction": [0.5, 1.0],
               "stages.again": {"task": "segmentation", "data": "hospital", "steps": 30, "batch_size": 4}}  # fmt: skip
    _, entries = entries_of(changes, tmp_path)
    assert {entry["comparisons"] for entry in entries} == {4}
    assert entries[0]["sd_units"] == round(detectable_over_replicates(2, 1, 4), 2)


def test_with_shared_pretraining_the_runs_are_reported(tmp_path: Path) -> None:
    _, entries = entries_of({"compare.seeds": [0, 1, 2]}, tmp_path)
    units = {entry["unit"]: entry["sd_units"] for entry in entries}
    assert units == {
        "fold and seed": round(detectable_over_replicates(2, 3), 2),
        "seed": round(detectable_over_units(3), 2),
    }


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "use 3 or more seeds"),
        ({"stages.classify.seed": 0, "compare.seeds": [0, 1, 2]}, "remove the seed of the stage"),
    ],
)
def test_one_pretraining_run_detects_nothing_and_the_remedy_is_stated(
    changes: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    plan, entries = entries_of(changes, tmp_path)
    assert {(entry["unit"], entry["sd_units"]) for entry in entries} == {("seed", None)}
    assert all(remedy in entry["reason"] for entry in entries)
    (line, *_) = detectable_lines(entries, alternatives(plan, 1))
    assert line.startswith("detectable   nothing can be significant against pathway=none: one pretraining run")


def test_a_fixed_test_set_counts_its_patients(tmp_path: Path) -> None:
    changes = {**BOTH, "data.hospital.images": 60, "data.hospital.patients": 30,
               "data.hospital.split": {"test": {"images": 20}, "validation": "folds"}}  # fmt: skip
    _, entries = entries_of(changes, tmp_path)
    assert {(entry["unit"], entry["sd_units"]) for entry in entries} == {
        ("patient", round(detectable_over_units(10), 2))
    }


def test_too_few_test_patients_detect_nothing(tmp_path: Path) -> None:
    changes = {**BOTH, "data.hospital.split": {"test": {"images": 4}, "validation": "folds"}}
    _, entries = entries_of(changes, tmp_path)
    assert {entry["sd_units"] for entry in entries} == {None}
    assert "2 test patients are too few" in entries[0]["reason"]


def test_without_a_baseline_the_reason_is_stated(tmp_path: Path) -> None:
    _, entries = entries_of({"compare.baseline": []}, tmp_path)
    assert [(entry["sd_units"], entry["reason"]) for entry in entries] == [
        (None, "no baseline is named, so nothing is tested")
    ]


def test_finished_stages_with_the_same_test_cases_give_the_units_of_the_metric(tmp_path: Path) -> None:
    pathways = {"none": ["segment"], "longer": ["slow"]}
    slow = {"task": "segmentation", "data": "hospital", "steps": 60, "batch_size": 4}
    trained_study = finished(tmp_path, overlapping=True, changes={"pathways": pathways, "stages.slow": slow})
    entries = detectable(trained_study.plan, trained_study.store)
    assert {entry["difference"] is not None for entry in entries} == {True}
    assert entries[0]["difference"] < entries[0]["sd_units"]


def test_more_seeds_and_folds_detect_smaller_differences(tmp_path: Path) -> None:
    plan, entries = entries_of(BOTH, tmp_path)
    options = alternatives(plan, 1)
    assert {(option["folds"], option["seeds"]) for option in options} == {(2, 3), (2, 5), (5, 1)}
    assert all(option["sd_units"] < entries[0]["sd_units"] for option in options)


def test_a_plan_lists_the_images_of_each_cell_and_those_without_validation(tmp_path: Path) -> None:
    plan = planned(tiny({"compare.labelled_fraction": [0.25, 1.0], "validation.min_cases": 2}), tmp_path / "cache")
    facts = summary(plan, Store(tmp_path / "runs"), tmp_path / "cache")
    sizes = {(cell["pathway"], cell["labelled_fraction"]): cell for cell in facts["cell_images"]}
    assert len(sizes) == 4
    assert {sizes["none", 1.0][name] for name in ("labelled", "test")} == {8.0}
    assert sizes["none", 0.25]["validation"] == 0
    text = summary_text(facts)
    assert "25 %: 2 labelled, none of them validates (the last epoch is taken); 8 test" in text
