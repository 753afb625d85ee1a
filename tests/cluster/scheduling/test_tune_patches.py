"""What is changed about Ray Tune while a graph runs: it asks Ray for less."""

from typing import Any

import pytest
from ray.tune import registry
from ray.tune.execution import tune_controller

from cluster.connect import Capacity
from cluster.protocol import QueuedStage, StageResources
from cluster.scheduling.executor import execute
from cluster.scheduling.tune_patches import CachedRegistry
from tests.cluster.scheduling.test_executor import Log, count

pytestmark = pytest.mark.cluster
KIND = "trainable_class"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect what Tune's registry asks Ray for."""
    keys: list[bytes] = []
    get = registry._internal_kv_get

    def noted(key: bytes) -> Any:  # noqa: ANN401 - Ray's own
        keys.append(key)
        return get(key)

    monkeypatch.setattr(registry, "_internal_kv_get", noted)
    return keys


@pytest.mark.usefixtures("capacity")
def test_what_is_registered_is_asked_for_once_and_anew_where_it_is_registered_again(asked: list[bytes]) -> None:
    known = CachedRegistry()
    for value in ("first", "second"):
        known.register(KIND, "key", value)
        assert [known.get(KIND, "key") for _ in range(5)] == [value] * 5
        assert known.contains(KIND, "key")
    assert len(asked) == 2
    known.unregister(KIND, "key")
    assert not known.contains(KIND, "key")
    assert not known.contains(KIND, "another")
    with pytest.raises(ValueError, match="another"):
        known.get(KIND, "another")


def test_tune_is_left_as_it_was(capacity: Capacity) -> None:
    before = registry._global_registry, tune_controller.RayActorManager, tune_controller._ActorClassCache
    execute([QueuedStage(id="only")], count, Log(), capacity=capacity, resources=StageResources())
    assert (registry._global_registry, tune_controller.RayActorManager, tune_controller._ActorClassCache) == before


def test_how_often_tune_asks_does_not_grow_with_the_number_of_items(capacity: Capacity, asked: list[bytes]) -> None:
    times = set()
    for number in (2, 20):
        asked.clear()
        execute(
            [QueuedStage(id=f"{place:02d}") for place in range(number)],
            count,
            Log(),
            capacity=capacity,
            resources=StageResources(),
        )
        times.add(len(asked))
    assert len(times) == 1
