"""What several files of tests only read or write to: small finished studies, a store of objects."""

from collections.abc import Iterator

import pytest

from tests.support.finished import Finished, finished
from tests.support.object_store import ObjectStore, object_store


@pytest.fixture(scope="session")
def exclusive(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Of classes that exclude each other."""
    return finished(tmp_path_factory.mktemp("exclusive"), overlapping=False)


@pytest.fixture(scope="session")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Of classes that overlap."""
    return finished(tmp_path_factory.mktemp("overlapping"), overlapping=True)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """A store of objects behind a real S3-protocol server."""
    with object_store() as store:
        yield store
