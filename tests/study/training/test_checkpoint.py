import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from study.training.checkpoint import Checkpoints, Snapshot
from tests.support.damage import flip


def snapshot(epoch: int) -> Snapshot:
    tensor = torch.full((8,), float(epoch))
    return Snapshot(
        parts={"network": {"weight": tensor}, "optimizer": {"0.exp_avg": tensor}, "best": {}},
        numbers={"progress": {"epoch": epoch}},
    )


def epoch_of(loaded: Snapshot | None) -> int:
    assert loaded is not None
    assert float(loaded.parts["network"]["weight"][0]) == loaded.numbers["progress"]["epoch"]
    return int(loaded.numbers["progress"]["epoch"])


def folders(work: Path) -> list[str]:
    return sorted(path.name for path in work.glob("*/epoch-*"))


def test_stage_that_has_not_started_has_no_checkpoint(tmp_path: Path) -> None:
    assert Checkpoints(work=tmp_path / "work").latest() is None


def test_saved_checkpoint_is_read(tmp_path: Path) -> None:
    saved = snapshot(3)
    Checkpoints(work=tmp_path).save(3, saved)
    loaded = Checkpoints(work=tmp_path).latest()

    assert loaded is not None
    assert torch.equal(loaded.parts["network"]["weight"], saved.parts["network"]["weight"])
    assert torch.equal(loaded.parts["optimizer"]["0.exp_avg"], saved.parts["optimizer"]["0.exp_avg"])
    assert (loaded.parts["best"], loaded.numbers) == ({}, saved.numbers)


def test_only_the_last_checkpoint_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(work=tmp_path)
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, snapshot(epoch))

    assert folders(tmp_path) == ["epoch-000003"]


def test_checkpoint_of_an_earlier_attempt_is_removed_once_there_is_a_later_one(tmp_path: Path) -> None:
    Checkpoints(work=tmp_path).save(2, snapshot(2))
    second = Checkpoints(work=tmp_path)
    assert epoch_of(second.latest()) == 2
    second.save(3, snapshot(3))

    assert folders(tmp_path) == ["epoch-000003"]


def both_attempts(work: Path) -> None:
    """Checkpoints after 9 and 10 epochs, as from two attempts on hosts unaware of each other."""
    other_host = work / "elsewhere" / work.name
    Checkpoints(work=other_host, attempt="a").save(10, snapshot(10))
    Checkpoints(work=work, attempt="b").save(9, snapshot(9))
    shutil.move(other_host / "a", work / "a")


def test_checkpoint_of_another_stage_is_not_read(tmp_path: Path) -> None:
    Checkpoints(work=tmp_path / "first", attempt="a").save(10, snapshot(10))
    shutil.copytree(tmp_path / "first", tmp_path / "second")

    assert Checkpoints(work=tmp_path / "first").latest() is not None
    assert Checkpoints(work=tmp_path / "second").latest() is None


def test_most_advanced_of_several_attempts_is_read(tmp_path: Path) -> None:
    both_attempts(tmp_path)

    assert epoch_of(Checkpoints(work=tmp_path).latest()) == 10


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


HARMS: dict[str, Callable[[Path], None]] = {
    "network cut off": lambda folder: cut(folder / "network.safetensors"),
    "bit of the optimizer flipped": lambda folder: flip(folder / "optimizer.safetensors", 8 * 80),
    "bit of the state flipped": lambda folder: flip(folder / "state.json", 8 * 40),
    "optimizer empty": lambda folder: (folder / "optimizer.safetensors").write_bytes(b"") and None,
    "best missing": lambda folder: (folder / "best.safetensors").unlink(),
    "state cut off": lambda folder: cut(folder / "state.json"),
    "state missing": lambda folder: (folder / "state.json").unlink(),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_truncated_checkpoint_is_skipped_for_an_older_one(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    both_attempts(tmp_path)
    harm(tmp_path / "a" / "epoch-000010")

    assert epoch_of(Checkpoints(work=tmp_path).latest()) == 9


def test_checkpoint_that_was_being_written_is_ignored(tmp_path: Path) -> None:
    Checkpoints(work=tmp_path, attempt="a").save(1, snapshot(1))
    (tmp_path / "a" / "epoch-000001").rename(tmp_path / "a" / "aside")

    assert Checkpoints(work=tmp_path).latest() is None


def test_incomplete_checkpoint_of_the_same_attempt_is_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(work=tmp_path, attempt="a")
    (tmp_path / "a" / "aside").mkdir(parents=True)
    (tmp_path / "a" / "aside" / "network.safetensors").write_bytes(b"half")
    checkpoints.save(1, snapshot(1))

    assert epoch_of(checkpoints.latest()) == 1


def test_checkpoint_is_due_at_the_configured_interval_of_epochs(tmp_path: Path) -> None:
    checkpoints = Checkpoints(work=tmp_path, every=3)

    assert [epoch for epoch in range(1, 10) if checkpoints.due(epoch)] == [3, 6, 9]


def test_checkpoint_is_not_due_during_the_pause(tmp_path: Path) -> None:
    assert not Checkpoints(work=tmp_path, pause=3600.0).due(1)


def test_checkpoint_is_due_after_the_pause(tmp_path: Path) -> None:
    checkpoints = Checkpoints(work=tmp_path, pause=0.01)
    time.sleep(0.02)

    assert checkpoints.due(1)


def test_state_is_plain_json(tmp_path: Path) -> None:
    Checkpoints(work=tmp_path, attempt="a").save(1, snapshot(1))

    state = json.loads((tmp_path / "a" / "epoch-000001" / "state.json").read_text())
    assert state["numbers"]["progress"] == {"epoch": 1}


def test_checkpoint_that_cannot_be_written_raises_an_os_error_and_leaves_no_file(tmp_path: Path) -> None:
    Checkpoints(work=tmp_path).save(1, snapshot(1))
    refused = Checkpoints(work=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            refused.save(2, snapshot(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert not list(refused.folder.iterdir())
    assert epoch_of(Checkpoints(work=tmp_path).latest()) == 1
