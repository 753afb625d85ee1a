"""Hours of annotation of arms, and the effect of a changed cost on a finished study."""

import tarfile
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest

from datasets.settings import AnnotationName
from datasets.source import AnnotationKind
from datasets.targets import annotation_name_of
from study.analysis.annotation_cost import (
    annotated_already,
    annotation_hours,
    arms_at_budgets,
    hours_by_cell,
    hours_lines,
)
from study.analysis.tables import write_outcome
from study.config.document import with_paths
from study.planning.graph import Plan
from study.planning.pending import pending_stages
from study.store.store import Store
from tests.golden.write import FINISHED, GOLDEN
from tests.support import documents, tiny

MINUTES = {
    "data.hospital.annotation_minutes": {"mask": 8, "class": 0.1},
    "data.clinic.annotation_minutes": {"box": 0.5, "points": 0.2, "class": 0.1},
}
HOSPITAL_TRAINING = 10
"""Training images of each of the two folds of 10 patients with 2 images each."""
CLINIC = 24


def planned(changes: documents.Document, place: Path) -> Plan:
    return documents.planned(documents.base(MINUTES | changes), place)


def hours(changes: documents.Document, place: Path) -> dict[tuple[str, float], float]:
    """Return the hours by pathway and labelled fraction."""
    plan = planned(changes, place)
    by_cell = annotation_hours(plan).items()
    return {(plan.arms[arm].factors["pathway"], labelled): value for (arm, labelled), value in by_cell}


def test_masks_and_the_labels_of_pretraining_on_other_data_are_added(tmp_path: Path) -> None:
    costs = hours({}, tmp_path)
    assert costs["none", 1.0] == pytest.approx(HOSPITAL_TRAINING * 8 / 60)
    assert costs["one_step", 1.0] == pytest.approx((HOSPITAL_TRAINING * 8 + CLINIC * 0.1) / 60)
    assert costs["two_step", 1.0] == pytest.approx((HOSPITAL_TRAINING * 8 + CLINIC * (0.1 + 0.5)) / 60)


def test_half_of_the_masks_are_those_of_complete_patients(tmp_path: Path) -> None:
    assert hours({}, tmp_path)["none", 0.5] == pytest.approx(3 * 2 * 8 / 60)  # 3 of 5 patients have 5 images or more


@pytest.mark.parametrize("min_cases", [1, 5])
def test_validation_images_cost_as_much_as_training_images(min_cases: int, tmp_path: Path) -> None:
    costs = hours({"validation.min_cases": min_cases}, tmp_path)
    assert costs["none", 1.0] == pytest.approx(HOSPITAL_TRAINING * 8 / 60)


def test_points_are_the_centres_of_structures(tmp_path: Path) -> None:
    locate = {"task": "localisation", "data": "clinic", "target": "centre", "structure": "heart", "epochs": 1}
    costs = hours(
        {"stages.locate": locate, "pathways": {"none": ["segment"], "points": ["locate", "segment"]}}, tmp_path
    )
    assert costs["points", 1.0] - costs["none", 1.0] == pytest.approx(CLINIC * 0.2 / 60)


def test_an_image_used_by_several_stages_counts_once_for_each_kind_of_annotation(tmp_path: Path) -> None:
    again = {"task": "segmentation", "data": "hospital", "epochs": 2}
    findings = {"task": "classification", "data": "hospital", "epochs": 1}
    pathways = {"none": ["segment"], "masks": ["again", "segment"], "findings": ["findings", "segment"]}
    changes = {"stages.again": again, "stages.findings": findings, "pathways": pathways}
    costs = hours(changes, tmp_path)
    assert costs["masks", 0.5] == pytest.approx(costs["none", 0.5])
    # Labels of all training images are used, for any fraction of masks.
    assert costs["findings", 0.5] == pytest.approx(costs["none", 0.5] + HOSPITAL_TRAINING * 0.1 / 60)


def test_images_used_without_annotation_cost_nothing(tmp_path: Path) -> None:
    encode = {"task": "reconstruction", "data": "clinic", "epochs": 1}
    costs = hours({"stages.encode": encode, "pathways": {"none": ["segment"], "ae": ["encode", "segment"]}}, tmp_path)
    assert costs["ae", 1.0] == costs["none", 1.0]


@pytest.mark.parametrize("unlabelled", ["hidden", "all"])
@pytest.mark.parametrize("task", ["adversarial", "consistency"])
def test_unlabelled_images_used_for_training_cost_nothing(task: str, unlabelled: str, tmp_path: Path) -> None:
    learn = {"task": task, "data": "hospital", "epochs": 1, task: {"unlabelled": unlabelled}}
    by_cell = hours({"stages.learn": learn, "pathways": {"none": ["segment"], "more": ["learn"]}}, tmp_path)
    assert by_cell["more", 0.5] == by_cell["none", 0.5]
    assert by_cell["more", 0.5] < by_cell["more", 1.0]


def test_every_kind_of_annotation_has_a_key_in_the_minutes() -> None:
    assert {annotation_name_of(kind) for kind in get_args(AnnotationKind)} == set(get_args(AnnotationName))


def test_hours_are_the_mean_over_folds_and_seeds(tmp_path: Path) -> None:
    changes = {"data.hospital.images": 23, "data.hospital.patients": 11, "compare.seeds": [0, 1], "compare.folds": 3}
    plan = planned({**changes, "pathways": {"none": ["segment"]}}, tmp_path)
    splits = plan.splits(0.5)
    sizes = [len(split.labelled) + len(split.validation) for split in splits]
    assert len(splits) == 6
    assert len(set(sizes)) > 1
    assert annotation_hours(plan)[0, 0.5] == pytest.approx(sum(sizes) * 8 / 60 / 6)


def test_data_without_minutes_are_already_annotated(tmp_path: Path) -> None:
    document = documents.base(MINUTES, without=("data.clinic.annotation_minutes",))
    plan = documents.planned(document, tmp_path)
    assert annotated_already(plan) == ["clinic"]
    assert {annotation_hours(plan)[arm, 1.0] for arm in range(3)} == {HOSPITAL_TRAINING * 8 / 60}


def test_without_any_minutes_no_hours_are_reported(tmp_path: Path) -> None:
    assert annotation_hours(documents.planned(documents.base(), tmp_path)) == {}


def test_the_plan_lists_the_hours_of_each_arm_at_each_amount_of_labels(tmp_path: Path) -> None:
    assert hours_lines(hours_by_cell(planned({}, tmp_path))) == [
        "none: 0.8 h at 50 %, 1.33 h at 100 %",
        "one_step: 0.84 h at 50 %, 1.37 h at 100 %",
        "two_step: 1.04 h at 50 %, 1.57 h at 100 %",
    ]


def test_arms_can_be_compared_at_budgets_within_their_range(tmp_path: Path) -> None:
    cells = hours_by_cell(planned({}, tmp_path))
    assert [budget["arms"] for budget in arms_at_budgets(cells, [0.7, 0.82, 1.0, 1.36, 2.0])] == [0, 1, 2, 2, 0]


def test_arms_that_depend_on_a_search_have_hours(tmp_path: Path) -> None:
    search = {"trials": 2, "reserve": 0.6, "space": {"target.optimizer.lr": {"loguniform": [1e-4, 1e-2]}}}
    plan = planned({"search": search, "validation.min_cases": 1, "compare.labelled_fraction": [1.0]}, tmp_path)
    assert not plan.replicates
    assert len(annotation_hours(plan)) == 3


def test_changed_minutes_recompute_the_tables_of_a_finished_study_without_training(tmp_path: Path) -> None:
    with tarfile.open(GOLDEN / "tiny.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    store = Store(tmp_path / "runs")
    table = store.study("tiny") / "comparisons.parquet"
    runs = []
    for minutes in (None, 6, 12):
        changes = {"data.hospital.annotation_minutes": {"mask": minutes}} if minutes else {}
        plan = tiny.planned(with_paths(FINISHED["tiny"](), changes), tmp_path)
        assert not pending_stages(plan, store).stages
        write_outcome(plan, store)
        (value,) = {row["annotation_hours"] for row in pq.read_table(table).to_pylist() if row["pathway"] == "none"}
        runs.append(value)
    assert runs[0] is None
    assert runs[2] == 2 * runs[1] > 0
