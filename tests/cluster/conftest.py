from collections.abc import Iterator

import pytest

from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster


@pytest.fixture(scope="module")
def capacity() -> Iterator[Capacity]:
    """Start a cluster of this machine; a file that needs another one has a fixture of this name."""
    with connected(LocalCluster()) as found:
        yield found
