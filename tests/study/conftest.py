"""Small finished studies that several files of tests only read."""

import pytest

from tests.data.finished import Finished, finished


@pytest.fixture(scope="session")
def exclusive(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Of classes that exclude each other."""
    return finished(tmp_path_factory.mktemp("exclusive"), overlapping=False)


@pytest.fixture(scope="session")
def overlapping(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Of classes that overlap."""
    return finished(tmp_path_factory.mktemp("overlapping"), overlapping=True)
