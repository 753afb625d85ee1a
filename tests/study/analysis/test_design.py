"""Notes on results that are shown beside the numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from study.analysis.design import _notes, study_design
from study.store.store import Store
from tests.support.tiny import planned, tiny


@pytest.mark.parametrize(
    ("labelled_images", "note"), [([7], "whole patients: 8 images labelled on average"), ([8], "")]
)
def test_rounding_to_complete_patients_is_noted(labelled_images: list[int], note: str, tmp_path: Path) -> None:
    changes = {"compare.labelled_images": labelled_images, "validation.min_cases": 1, "compare.pathway": ["none"]}
    document = tiny(changes)
    del document["compare"]["labelled_fraction"]
    notes = set(_notes(planned(document, tmp_path)).values())
    assert notes == ({note} if note else set())


@pytest.mark.parametrize("task", ["adversarial", "consistency"])
@pytest.mark.parametrize(("fraction", "expected"), [(0.5, False), (1.0, True)])
def test_semi_supervised_training_without_unlabelled_images_is_noted(
    fraction: float, expected: bool, task: str, tmp_path: Path
) -> None:
    play = {"task": task, "data": "hospital", "steps": 2, "batch_size": 2}
    changes = {"stages.play": play, "pathways": {"none": ["play"]}, "compare.labelled_fraction": [fraction]}
    notes = _notes(planned(tiny(changes), tmp_path))
    expected_note = f"fewer than 2 unlabelled images: {task} training on labelled images alone"
    assert any(expected_note in note for note in notes.values()) == expected


def test_settings_without_effect_in_the_absence_of_validation_images_are_noted(tmp_path: Path) -> None:
    changes = {"stages.segment.schedule": {"name": "plateau"}, "validation.min_cases": 50, "compare.pathway": ["none"],
               "stages.segment.class_threshold": {"class": "heart", "false_positive_rate": 0.1}}  # fmt: skip
    (note,) = set(_notes(planned(tiny(changes), tmp_path)).values())
    assert "plateau never lowers the learning rate; no threshold of heart is chosen" in note


def test_replicates_after_a_permanently_failed_stage_have_failed(tmp_path: Path) -> None:
    plan, store = planned(tiny(), tmp_path / "cache"), Store(tmp_path / "runs")
    classify = next(name for name, node in plan.nodes.items() if node.step.stage == "classify")
    store.study("tiny").mkdir(parents=True)
    line = json.dumps({"digest": classify, "stage": "classify", "error": "diverged"})
    (store.study("tiny") / "failures.jsonl").write_text(f"{line}\nnot json\n", encoding="utf-8")
    failed = {cell.arm[-1]: cell.failed for cell in study_design(plan, store).cells}
    assert failed == {"none": 0, "one_step": 2}


def test_pretraining_stages_shared_by_folds_are_the_runs(tmp_path: Path) -> None:
    plan = planned(tiny({"compare.seeds": [0, 1]}), tmp_path / "cache")
    chains = study_design(plan, Store(tmp_path / "runs")).ancestors
    pretrained = {replicate.seed: chains[replicate.chain[-1]] for replicate in plan.replicates if replicate.arm == 1}
    assert len(set(pretrained.values())) == 2


def test_the_region_of_practical_equivalence_is_one_number_or_one_for_each_metric(tmp_path: Path) -> None:
    rope = study_design(planned(tiny({"compare.rope": 0.02}), tmp_path), Store(tmp_path)).rope
    assert (rope.half_width("dice"), np.isnan(rope.half_width("false_positive_pixels"))) == (0.02, True)
    rope = study_design(planned(tiny({"compare.rope": {"dice": 0.03}}), tmp_path), Store(tmp_path)).rope
    assert (rope.half_width("dice"), rope.half_width("mean_iou")) == (0.03, 0.01)


@pytest.mark.parametrize(("seed", "fixed"), [({}, False), ({"data.hospital.split.seed": 3}, True)])
def test_a_split_seed_fixes_the_split_for_all_seeds(seed: dict[str, int], fixed: bool, tmp_path: Path) -> None:
    assert study_design(planned(tiny(seed), tmp_path), Store(tmp_path)).fixed_split is fixed
