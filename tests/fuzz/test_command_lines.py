"""Unusual command lines end with an exit status and one line, never with a traceback."""

from pathlib import Path

import pytest

from tests.fuzz.command_lines import command_lines
from tests.fuzz.running import output_problem, run_command
from tests.support.documents import base, write_study
from tests.support.finished import finished
from tests.support.folder import write_folder

COMMAND_LINES = list(command_lines())
SHOWS_HELP = ((), ("data",))


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command_lines")
    finished(folder, overlapping=False)
    write_study(base(), folder / "study.yaml")
    write_folder(folder / "folder")
    (folder / "file").touch()
    return folder


def run_all(lines: list[tuple[str, ...]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for arguments in lines:
        try:
            result = run_command(*arguments)
        except BaseException as error:
            raise AssertionError(f"study {arguments!a}") from error
        problem = output_problem(result, single=arguments not in SHOWS_HELP)
        assert problem is None, f"study {arguments!a}: {problem}"


def test_at_least_eighty_different_command_lines_exist() -> None:
    assert len(set(COMMAND_LINES)) >= 80


def test_twenty_command_lines_end_with_one_line(study_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(COMMAND_LINES[:: len(COMMAND_LINES) // 20], study_folder, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1500)
def test_all_command_lines_end_with_one_line(study_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(COMMAND_LINES, study_folder, monkeypatch)
