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


def test_paths_are_stored_absolute_so_that_a_study_can_be_resumed_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, problems = parse(DOCUMENT)
    assert spec is not None
    assert not problems
    stored = with_absolute_places(DOCUMENT, spec)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again, _ = parse(stored)
    assert again == spec
    assert stored["data"]["mine"]["root"] == str(tmp_path / "here")
    assert stored["data"]["drawn"] == {"source": "phantom"}
    assert stored["compare"]["baseline"] == {"initial_weights": {"file": str(tmp_path / "w.safetensors")}}


def test_two_weights_files_with_one_name_are_refused() -> None:
    weights = [{"file": "a/w.safetensors"}, {"file": "b/w.safetensors"}]
    _, problems = parse({**DOCUMENT, "compare": {**DOCUMENT["compare"], "initial_weights": weights}})
    assert any("allowed: files of different names; rename one" in problem.message for problem in problems)


def test_a_weights_file_has_one_allow_setting_for_all_rules() -> None:
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


@pytest.mark.parametrize("resources", [{"workers": 2}, {"gpus": 0.5}, {"gpus": 0}])
def test_packing_is_refused_with_other_settings_of_gpus(resources: dict[str, float]) -> None:
    (problem,) = parse({**DOCUMENT, "resources": {"pack": True, **resources}})[1]
    assert problem.path == "resources"
    assert "allowed: with workers 1 and gpus auto or 1" in problem.message


@pytest.mark.parametrize(("gpus", "accepted"), [("auto", True), (0, True), (2, True), (0.5, False)])
def test_several_workers_need_whole_gpus(gpus: object, accepted: bool) -> None:
    problems = parse({**DOCUMENT, "resources": {"workers": 2, "gpus": gpus}})[1]
    messages = [problem.message for problem in problems if problem.path == "resources"]
    assert ["set gpus: 1, or workers: 1" in message for message in messages] == ([] if accepted else [True])


@pytest.mark.parametrize("gpus", ["auto", 1])
def test_packing_is_accepted_for_stages_with_at_most_one_gpu(gpus: object) -> None:
    assert not parse({**DOCUMENT, "resources": {"pack": True, "gpus": gpus}})[1]
