"""How many items a cluster has places for."""

import pytest

from cluster.connect import Capacity
from cluster.protocol import StageResources


@pytest.mark.parametrize(
    ("share", "slots"),
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
def test_items_share_processors_and_gpus_and_none_spans_two_gpus(share: StageResources, slots: int) -> None:
    assert share.slots(Capacity(cpus=8.0, gpus=2.0)) == slots


def test_a_fifth_of_a_gpu_fits_five_times() -> None:
    assert StageResources(gpus=0.2).slots(Capacity(cpus=8.0, gpus=1.0)) == 5
