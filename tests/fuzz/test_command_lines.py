"""Odd command lines end with an exit status and one line, never with a traceback."""

from pathlib import Path

import pytest

from tests.fuzz.command_lines import command_lines
from tests.fuzz.running import ended, lines_problem
from tests.support.documents import base, write_study
from tests.support.finished import finished
from tests.support.folder import write_folder

EVERY = list(command_lines())
SHOWS_HELP = ((), ("data",))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    finished(folder, overlapping=False)
    write_study(base(), folder / "study.yaml")
    write_folder(folder / "folder")
    (folder / "file").touch()
    return folder


def run_all(lines: list[tuple[str, ...]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for words in lines:
        try:
            command = ended(*words)
        except BaseException as error:
            raise AssertionError(f"study {words!a}") from error
        problem = lines_problem(command, one=words not in SHOWS_HELP)
        assert problem is None, f"study {words!a}: {problem}"


def test_there_are_eighty_or_more() -> None:
    assert len(set(EVERY)) >= 80


def test_twenty_odd_command_lines_end_in_a_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(EVERY[:: len(EVERY) // 20], place, monkeypatch)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(1500)
def test_all_odd_command_lines_end_in_a_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(EVERY, place, monkeypatch)
