"""Randomly changed study files: planned or rejected with printable lines, never with a traceback."""

from pathlib import Path

import pytest

from tests.fuzz.running import output_problem, run_command
from tests.fuzz.study_files import mutated_files

SEED = 20_261


def plan_all(seed: int, count: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    for position, text in enumerate(mutated_files(seed, count)):
        Path("study.yaml").write_bytes(text)
        try:
            problem = output_problem(run_command("plan", "study.yaml", "--cache", "cache"), single=False)
        except BaseException as error:
            raise AssertionError(f"mutation {position} of seed {seed}: {text!r}") from error
        assert problem is None, f"mutation {position} of seed {seed}: {problem}: {text!r}"


def test_forty_changed_study_files_are_planned_or_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_all(SEED, 40, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.filterwarnings("ignore")
def test_two_thousand_changed_study_files_are_planned_or_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_all(SEED + 1, 2000, tmp_path, monkeypatch)
