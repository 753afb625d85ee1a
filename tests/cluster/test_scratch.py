"""Scratch folders: private, removed with their process, and safe from files of other users."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.scratch import LOCK, MAX_BASE_LENGTH, PREFIX, scratch_folder

HOLDER = """
import sys, time
from cluster.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "session").mkdir()
    (folder / "session" / "file").touch()
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def start_holder(base: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = os.environ | {"TMPDIR": str(base)}
    command = [sys.executable, "-c", HOLDER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folder_is_removed_after_the_block(base: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == base
    assert not list(base.iterdir())


def test_folder_is_removed_after_an_error(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder():
        raise KeyboardInterrupt
    assert not list(base.iterdir())


def test_folder_of_a_killed_process_is_removed_by_the_next_one(base: Path) -> None:
    process, folder = start_holder(base)
    process.kill()
    process.communicate()
    assert (folder / "session" / "file").exists()
    with scratch_folder():
        assert not (folder / "session").exists()
        (folder / "session").mkdir()  # by a child of the killed process that ends later
    assert not list(base.iterdir())


def test_folder_of_a_living_process_is_left_alone(base: Path) -> None:
    process, folder = start_holder(base)
    with scratch_folder():
        assert (folder / "session" / "file").exists()
    assert (folder / "session" / "file").exists()
    process.communicate("\n", timeout=30)
    assert not folder.exists()


def test_folder_is_in_tmp_if_socket_paths_would_be_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(str(tmp_path)) > MAX_BASE_LENGTH
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.parent == Path("/tmp")


def test_folder_is_private_for_any_umask(base: Path) -> None:
    before = os.umask(0)
    try:
        with scratch_folder() as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_links_planted_by_another_user_are_neither_followed_nor_removed(base: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "folder").mkdir(parents=True)
    (target / "file").write_text("mine")
    (target / LOCK).write_text("mine")
    planted = base / f"{PREFIX}planted"
    planted.mkdir()
    planted.chmod(0o777)
    (planted / LOCK).symlink_to(target / "file")
    (planted / "session").symlink_to(target)
    (base / f"{PREFIX}link").symlink_to(target)
    with scratch_folder() as folder:
        assert folder not in {planted, base / f"{PREFIX}link"}
    assert {path.name: path.read_text() for path in target.glob("*") if path.is_file()} == {
        "file": "mine",
        LOCK: "mine",
    }
    assert (target / "folder").is_dir()
    assert (planted / "session").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_private_folder_of_another_user_is_left_alone(base: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    planted = base / f"{PREFIX}planted"
    planted.mkdir(mode=0o700)
    (planted / LOCK).symlink_to(tmp_path / "file")
    os.chown(planted, 65534, 65534)
    with scratch_folder():
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert planted.exists()
