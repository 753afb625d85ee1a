"""Data folders with random faults: read or refused, in printable lines, never with a traceback or without end."""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.data_folders import write_changed
from tests.fuzz.running import ended, lines_problem
from tests.support.documents import write_study

SEED = 4_711


def check_all(numbers: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for number in numbers:
        root = folder / f"data{number}"
        source, done = write_changed(root, np.random.default_rng([SEED, number]))
        document = {
            "name": "changed", "data": {"mine": {"source": source, "root": str(root)}}, "image": {"size": 32},
            "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
            "pathways": {"none": ["segment"]},
            "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 2},
            "validation": {"min_cases": 1},
        }  # fmt: skip
        write_study(document, folder / "study.yaml")
        for words in (("plan", "study.yaml"), ("data", "check", source, str(root), "--output", "sheet.png")):
            try:
                command = ended(*words, "--cache", "cache")
            except BaseException as error:
                raise AssertionError(f"folder {number}: {words[0]}: {done}") from error
            problem = lines_problem(command, one=False)
            assert problem is None, f"folder {number}: {words[0]}: {done}: {problem}"


def test_twenty_changed_data_folders_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_all(range(20), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")
def test_many_changed_data_folders_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_all(range(20, 300), tmp_path, monkeypatch)
