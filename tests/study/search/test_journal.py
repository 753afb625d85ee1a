"""The journal of a search on a storage that refuses for a while."""

import threading
from pathlib import Path

import optuna
import pytest

from study.search.journal import journal_file, open_journal
from tests.support.nodes import disk, fill, may_mount


@pytest.mark.skipif(not may_mount(), reason="takes the right to mount disks")
def test_trials_of_a_full_disk_are_written_whole_once_there_is_room(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with disk(place, 1):
        journal = open_journal(place, create=True)
        assert journal is not None
        study = optuna.create_study(storage=journal)
        filler = fill(place)
        timer = threading.Timer(1.5, filler.unlink)
        timer.start()
        # More than the last page of the file holds: a part of it fits.
        for number in range(20):
            trial = optuna.trial.create_trial(value=number, user_attrs={"long": "x" * 2000})
            study.add_trial(trial)
        timer.join()
        again = open_journal(place, create=False)
        assert again is not None
        (name,) = again.get_all_studies()
        assert [trial.value for trial in again.get_all_trials(name._study_id)] == list(range(20))


def test_half_a_line_of_a_driver_that_was_killed_is_no_part_of_the_next(tmp_path: Path) -> None:
    first = open_journal(tmp_path, create=True)
    assert first is not None
    optuna.create_study(storage=first, study_name="one")
    with journal_file(tmp_path).open("ab") as stream:
        stream.write(b'{"op_code": 0, "wor')
    second = open_journal(tmp_path, create=True)
    assert second is not None
    optuna.create_study(storage=second, study_name="two")
    again = open_journal(tmp_path, create=False)
    assert again is not None
    assert {one.study_name for one in again.get_all_studies()} == {"one", "two"}
