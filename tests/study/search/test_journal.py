"""The journal of a search on a full disk and after a killed driver."""

import threading
from pathlib import Path

import optuna
import pytest

from study.search.journal import journal_file, open_journal
from tests.support.nodes import disk, fill, may_mount


@pytest.mark.skipif(not may_mount(), reason="needs permission to mount disks")
def test_trials_are_written_completely_once_the_full_disk_has_space(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with disk(folder, 1):
        journal = open_journal(folder, create=True)
        assert journal is not None
        study = optuna.create_study(storage=journal)
        filler = fill(folder)
        timer = threading.Timer(1.5, filler.unlink)
        timer.start()
        # Larger than the space left in the last page, so that a write is incomplete.
        for number in range(20):
            trial = optuna.trial.create_trial(value=number, user_attrs={"long": "x" * 2000})
            study.add_trial(trial)
        timer.join()
        reopened = open_journal(folder, create=False)
        assert reopened is not None
        (stored_study,) = reopened.get_all_studies()
        assert [trial.value for trial in reopened.get_all_trials(stored_study._study_id)] == list(range(20))


def test_incomplete_line_of_killed_driver_is_discarded(tmp_path: Path) -> None:
    first = open_journal(tmp_path, create=True)
    assert first is not None
    optuna.create_study(storage=first, study_name="one")
    with journal_file(tmp_path).open("ab") as stream:
        stream.write(b'{"op_code": 0, "wor')
    second = open_journal(tmp_path, create=True)
    assert second is not None
    optuna.create_study(storage=second, study_name="two")
    reopened = open_journal(tmp_path, create=False)
    assert reopened is not None
    assert {study.study_name for study in reopened.get_all_studies()} == {"one", "two"}
