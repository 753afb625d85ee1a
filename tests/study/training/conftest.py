"""Fixtures of stages that train in the process of a test."""

from pathlib import Path

import pytest
import torch


@pytest.fixture
def one_thread() -> None:
    """Compute on one thread, so that sums have one order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of prepared images that the tests of a module share."""
    return tmp_path_factory.mktemp("cache")
