"""The per-user cache, which may contain images of patients."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.places import default_cache


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_default_cache_is_created_readable_by_its_user_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_cache().stat().st_mode & 0o777 == 0o700


def test_default_cache_opened_to_others_by_its_user_is_left_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default_cache().chmod(0o755)
    assert default_cache().stat().st_mode & 0o777 == 0o755


def test_default_cache_below_a_file_is_reported_and_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert default_cache() == tmp_path / "file" / "segmentation-study"
