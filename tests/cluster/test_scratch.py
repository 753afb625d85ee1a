import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.scratch import LONGEST, scratch_folder

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


def holder(base: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = os.environ | {"TMPDIR": str(base)}
    words = [sys.executable, "-c", HOLDER]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folder_is_removed_with_the_block(base: Path) -> None:
    with scratch_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == base
    assert not list(base.iterdir())


def test_folder_is_removed_after_an_error(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder():
        raise KeyboardInterrupt
    assert not list(base.iterdir())


def test_folder_of_a_killed_process_is_removed_by_the_next(base: Path) -> None:
    process, folder = holder(base)
    process.kill()
    process.communicate()
    assert (folder / "session" / "file").exists()
    with scratch_folder():
        assert not (folder / "session").exists()
        (folder / "session").mkdir()  # by a process of the killed one's, which ends later
    assert not list(base.iterdir())


def test_folder_of_a_living_process_is_left_alone(base: Path) -> None:
    process, folder = holder(base)
    with scratch_folder():
        assert (folder / "session" / "file").exists()
    assert (folder / "session" / "file").exists()
    process.communicate("\n", timeout=30)
    assert not folder.exists()


def test_folder_is_not_put_where_the_paths_of_sockets_get_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(str(tmp_path)) > LONGEST
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as folder:
        assert folder.parent == Path("/tmp")
