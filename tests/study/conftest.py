"""Fixtures shared by several test files, read-only or write-only: small finished studies, an object store."""

from collections.abc import Iterator

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
