from pathlib import Path
from typing import Any

import pytest

from study.config.schema import StudySpec, with_absolute_places
from study.config.validation import parse
from study.errors import Problem

DOCUMENT: dict[str, Any] = {
    "name": "s",
    "data": {
        "mine": {"source": "folder", "root": "here", "split": {"test": {"list": "test.txt"}}},
        "drawn": {"source": "phantom"},
    },
    "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
    "pathways": {"none": ["segment"]},
    "compare": {
        "architecture": ["unet"],
        "backbone": ["resnet18"],
        "folds": 1,
        "initial_weights": ["random", {"file": "w.safetensors"}],
        "baseline": {"initial_weights": {"file": "w.safetensors"}},
    },
}


def test_places_are_kept_absolute_so_that_a_study_resumes_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, problems = parse(DOCUMENT)
    assert spec is not None
    assert not problems
    kept = with_absolute_places(DOCUMENT, spec)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again, _ = parse(kept)
    assert again == spec
    assert kept["data"]["mine"]["root"] == str(tmp_path / "here")
    assert kept["data"]["drawn"] == {"source": "phantom"}
    assert kept["compare"]["baseline"] == {"initial_weights": {"file": str(tmp_path / "w.safetensors")}}


def test_two_files_of_weights_with_one_name_are_refused() -> None:
    weights = [{"file": "a/w.safetensors"}, {"file": "b/w.safetensors"}]
    _, problems = parse({**DOCUMENT, "compare": {**DOCUMENT["compare"], "initial_weights": weights}})
    assert any("allowed: files of different names; rename one" in problem.message for problem in problems)


def test_a_file_of_weights_has_one_allow_which_rules_share() -> None:
    listed = {"file": "w.safetensors", "allow": ["layer4.*"]}

    def compared(rule: dict[str, object]) -> tuple[StudySpec | None, list[Problem]]:
        compare = {**DOCUMENT["compare"], "initial_weights": ["random", listed], "baseline": {"initial_weights": rule}}
        return parse({**DOCUMENT, "compare": compare})

    spec, problems = compared({"file": "w.safetensors"})
    assert not problems
    assert spec is not None
    assert spec.compare.baseline == ({"initial_weights": spec.compare.initial_weights[1]},)
    _, (problem,) = compared({"file": "w.safetensors", "allow": ["other"]})
    assert "w.safetensors with different allow; allowed: each file with one allow; copy" in problem.message


@pytest.mark.parametrize("others", [{"workers": 2}, {"gpus": 0.5}, {"gpus": 0}])
def test_packing_is_refused_where_gpus_are_given_otherwise(others: dict[str, float]) -> None:
    (problem,) = parse({**DOCUMENT, "resources": {"pack": True, **others}})[1]
    assert problem.path == "resources"
    assert "allowed: with workers 1 and gpus auto or 1" in problem.message


@pytest.mark.parametrize(("gpus", "taken"), [("auto", True), (0, True), (2, True), (0.5, False)])
def test_several_workers_have_whole_gpus(gpus: object, taken: bool) -> None:
    problems = parse({**DOCUMENT, "resources": {"workers": 2, "gpus": gpus}})[1]
    told = [problem.message for problem in problems if problem.path == "resources"]
    assert ["set gpus: 1, or workers: 1" in message for message in told] == ([] if taken else [True])


@pytest.mark.parametrize("gpus", ["auto", 1])
def test_packing_is_taken_where_a_stage_has_one_gpu_or_none(gpus: object) -> None:
    assert not parse({**DOCUMENT, "resources": {"pack": True, "gpus": gpus}})[1]
