"""Data folders with random faults: read or rejected with printable lines, never with a traceback or a hang."""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.data_folders import write_damaged
from tests.fuzz.running import output_problem, run_command
from tests.support.documents import write_study

SEED = 4_711


def check_all(numbers: range, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for number in numbers:
        root = folder / f"data{number}"
        source, changes = write_damaged(root, np.random.default_rng([SEED, number]))
        document = {
            "name": "changed", "data": {"mine": {"source": source, "root": str(root)}}, "image": {"size": 32},
            "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
            "pathways": {"none": ["segment"]},
            "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 2},
            "validation": {"min_cases": 1},
        }  # fmt: skip
        write_study(document, folder / "study.yaml")
        for arguments in (("plan", "study.yaml"), ("data", "check", source, str(root), "--output", "sheet.png")):
            try:
                result = run_command(*arguments, "--cache", "cache")
            except BaseException as error:
                raise AssertionError(f"folder {number}: {arguments[0]}: {changes}") from error
            problem = output_problem(result, single=False)
            assert problem is None, f"folder {number}: {arguments[0]}: {changes}: {problem}"


def test_twenty_damaged_data_folders_are_read_or_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_all(range(20), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_data_folders_are_read_or_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_all(range(20, 300), tmp_path, monkeypatch)
