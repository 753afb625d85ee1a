"""How many stages a cluster runs concurrently."""

import pytest

from cluster.connect import Capacity
from cluster.protocol import StageResources


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        (StageResources(cpus=1), 8),
        (StageResources(cpus=3), 2),
        (StageResources(cpus=1, workers=3), 2),
        (StageResources(cpus=16), 1),
        (StageResources(gpus=0.2), 8),
        (StageResources(gpus=0.6), 2),
        (StageResources(gpus=0.5), 4),
        (StageResources(gpus=2.0), 1),
        (StageResources(gpus=1.0, workers=2), 1),
    ],
)
def test_slots_share_cpus_and_gpus_without_spanning_two_gpus(resources: StageResources, slots: int) -> None:
    assert resources.slots(Capacity(cpus=8.0, gpus=2.0)) == slots


def test_five_stages_with_a_fifth_of_a_gpu_fit() -> None:
    assert StageResources(gpus=0.2).slots(Capacity(cpus=8.0, gpus=1.0)) == 5
