"""A study with a search on the command line and a local Ray cluster, with its driver killed and restarted."""

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
def resumed_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and output of a search of two arms that was killed after two trials and then run again."""
    folder = tmp_path_factory.mktemp("search")
    document = searched({"compare.labelled_fraction": [1.0]}, trials=4, prune={"median": {"trials": 2}})
    file = written(document, folder)
    arguments = ("run", file, "--storage", folder / "runs", "--cache", folder / "cache")
    first = Command(*arguments, temporary=folder)
    first.until(lambda: first.text.count("trial ") >= 2)
    first.send(signal.SIGKILL)
    second = Command(*arguments, temporary=folder)
    assert second.wait() == 0, second.text
    return folder, second.text


def test_killed_search_ends_with_the_configured_trials(resumed_run: tuple[Path, str]) -> None:
    rows = search_rows(Store(resumed_run[0] / "runs").study("searched"))
    for name in {row["search"] for row in rows}:
        trials = [row for row in rows if row["search"] == name]
        assert [row["trial"] for row in trials] == [0, 1, 2, 3]
        assert {row["state"] for row in trials} <= {"complete", "pruned"}
        assert len({str(row["params"]) for row in trials}) == 4


def test_best_settings_are_compared_in_the_same_run(resumed_run: tuple[Path, str]) -> None:
    assert "mean IoU (pooled)" in resumed_run[1]
    assert "one_step" in resumed_run[1]


def test_figures_and_journal_are_in_the_study_folder(resumed_run: tuple[Path, str]) -> None:
    folder = Store(resumed_run[0] / "runs").study("searched")
    assert journal_file(folder).is_file()
    kinds = {path.stem.rpartition("-")[2] for path in (folder / "search").glob("*.png")}
    assert kinds >= {"history", "parallel"}


def test_resume_trains_nothing_and_table_shows_the_trials(resumed_run: tuple[Path, str]) -> None:
    folder, _ = resumed_run
    before = histories(folder / "runs")
    resumed = Command("resume", "searched", "--storage", folder / "runs", "--cache", folder / "cache", temporary=folder)
    assert resumed.wait() == 0, resumed.text
    assert histories(folder / "runs") == before
    table = Command("table", "searched", "--search", "--storage", folder / "runs", temporary=folder)
    assert table.wait() == 0, table.text
    assert "| search | trials | complete | pruned | failed | image-epochs | best | settings |" in table.text


def test_report_of_a_study_with_search_is_written(resumed_run: tuple[Path, str]) -> None:
    folder, _ = resumed_run
    report = Command("report", "searched", "--storage", folder / "runs", "--cache", folder / "cache", temporary=folder)
    assert report.wait() == 0, report.text
