from pathlib import Path

import pytest

from study.document import with_paths
from study.parse import parse
from study.spec import data_places

DOCUMENT = {
    "name": "s",
    "data": {
        "mine": {"source": "folder", "root": "here", "split": {"test": {"list": "test.txt"}}},
        "drawn": {"source": "phantom"},
    },
    "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
    "pathways": {"none": ["segment"]},
    "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 1},
}


def test_places_of_data_are_kept_absolute_so_that_a_study_resumes_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, problems = parse(DOCUMENT)
    assert spec is not None
    assert not problems
    kept = with_paths(DOCUMENT, data_places(spec))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again, _ = parse(kept)
    assert again == spec
    assert kept["data"]["mine"]["root"] == str(tmp_path / "here")
    assert kept["data"]["drawn"] == {"source": "phantom"}
