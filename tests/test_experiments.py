"""The experiments are not run by tests, but each must plan, on images that were not used to choose settings."""

from collections import Counter
from pathlib import Path

import pytest

from study.config.document import Document, read_document
from study.search.load import load_plan
from tests.experiments.__main__ import EXPERIMENTS, FOLDER, TEACHER, changes, file_of, teacher_file


def changed(name: str, storage: Path, *, development: bool) -> Document:
    """Return the study file of an experiment as it is run."""
    return read_document(file_of(name), changes(name, storage, development))


def seeds(document: Document) -> set[int]:
    """Return the seeds of all generated images of a study."""
    return {settings["seed"] for settings in document["data"].values()}


def test_every_study_file_is_an_experiment_or_its_teacher() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*EXPERIMENTS, TEACHER}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_plans_with_three_seeds_of_every_arm(name: str, tmp_path: Path) -> None:
    document = changed(name, tmp_path, development=False)
    if name == "self_supervised":
        assert document["stages"]["imitate"]["teacher"]["initial_weights"] == {"file": str(teacher_file(tmp_path))}
        document["stages"]["imitate"]["teacher"]["initial_weights"] = "random"
    plan = load_plan(document, file="study.yaml", cache=tmp_path)
    per_cell = Counter((replicate.arm, replicate.labelled) for replicate in plan.replicates)
    assert set(per_cell.values()) == {3}


def test_no_images_of_an_experiment_were_used_to_choose_its_settings(tmp_path: Path) -> None:
    used = set.union(*(seeds(changed(name, tmp_path, development=True)) for name in EXPERIMENTS))
    used |= seeds(read_document(file_of(TEACHER)))
    for name in EXPERIMENTS:
        assert used.isdisjoint(seeds(changed(name, tmp_path, development=False)))
