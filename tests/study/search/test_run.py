"""A study with a search through the real command line, on a real Ray cluster, with the driver killed."""

import signal
from pathlib import Path

import pytest

from study.search.journal import journal_file
from study.search.table import search_rows
from study.store.store import Store
from tests.support.command import Command, histories
from tests.support.searched import searched
from tests.support.tiny import written

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A search of two arms whose driver was killed after two trials, and that was run again; with what that said."""
    folder = tmp_path_factory.mktemp("search")
    document = searched({"compare.labelled_fraction": [1.0]}, trials=4, prune={"median": {"trials": 2}})
    file = written(document, folder)
    arguments = ("run", file, "--storage", folder / "runs", "--cache", folder / "cache")
    killed = Command(*arguments, temporary=folder)
    killed.until(lambda: killed.text.count("trial ") >= 2)
    killed.send(signal.SIGKILL)
    again = Command(*arguments, temporary=folder)
    assert again.wait() == 0, again.text
    return folder, again.text


def test_a_search_that_was_killed_ends_with_exactly_its_trials(storage: tuple[Path, str]) -> None:
    rows = search_rows(Store(storage[0] / "runs").study("searched"))
    for name in {row["search"] for row in rows}:
        own = [row for row in rows if row["search"] == name]
        assert [row["trial"] for row in own] == [0, 1, 2, 3]
        assert {row["state"] for row in own} <= {"complete", "pruned"}
        assert len({str(row["params"]) for row in own}) == 4


def test_what_was_found_is_compared_in_the_same_run(storage: tuple[Path, str]) -> None:
    assert "mean IoU (pooled)" in storage[1]
    assert "one_step" in storage[1]


def test_pictures_and_journal_lie_in_the_study_s_folder(storage: tuple[Path, str]) -> None:
    folder = Store(storage[0] / "runs").study("searched")
    assert journal_file(folder).is_file()
    kinds = {path.stem.rpartition("-")[2] for path in (folder / "search").glob("*.png")}
    assert kinds >= {"history", "parallel"}


def test_running_again_trains_nothing_and_the_table_shows_the_trials(storage: tuple[Path, str]) -> None:
    folder, _ = storage
    before = histories(folder / "runs")
    resumed = Command("resume", "searched", "--storage", folder / "runs", "--cache", folder / "cache", temporary=folder)
    assert resumed.wait() == 0, resumed.text
    assert histories(folder / "runs") == before
    table = Command("table", "searched", "--search", "--storage", folder / "runs", temporary=folder)
    assert table.wait() == 0, table.text
    assert "| search | trials | complete | pruned | failed | image-epochs | best | settings |" in table.text


def test_the_report_of_a_searched_study_is_written(storage: tuple[Path, str]) -> None:
    folder, _ = storage
    report = Command("report", "searched", "--storage", folder / "runs", "--cache", folder / "cache", temporary=folder)
    assert report.wait() == 0, report.text
