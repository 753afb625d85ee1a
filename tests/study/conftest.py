"""Fixtures shared by several test files: small finished studies, an object store, an empty working directory."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.finished import Finished, finished
from tests.support.object_store import ObjectStore, object_store


@pytest.fixture(scope="session")
def exclusive(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with mutually exclusive classes."""
    return finished(tmp_path_factory.mktemp("exclusive"), overlapping=False)


@pytest.fixture(scope="session")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study with overlapping classes."""
    return finished(tmp_path_factory.mktemp("overlapping"), overlapping=True)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An object store behind a real S3-protocol server."""
    with object_store() as store:
        yield store


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, with caches of its own and without the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path
