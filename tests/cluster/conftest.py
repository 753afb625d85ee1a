from collections.abc import Iterator

import pytest

from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    """Start a local cluster; modules that need a different cluster override this fixture."""
    with connected(LocalCluster()) as capacity:
        yield capacity
