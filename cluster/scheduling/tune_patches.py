"""Patches of Ray Tune: it reuses idle workers, survives out-of-memory kills and queries Ray less often."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.air._internal import usage
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import registry
from ray.tune.execution import tune_controller


class ActorManager(RayActorManager):
    """Reports out-of-memory kills to Tune as lost actors; Tune does not handle that error and would end the run."""

    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        out_of_memory = isinstance(exception, OutOfMemoryError)
        super()._actor_task_failed(tracked_actor_task, NodeOutOfMemory(exception) if out_of_memory else exception)


class NodeOutOfMemory(RayActorError):  # noqa: N818 - a state of a node, not a bug
    """A node ran out of memory and Ray killed a worker there."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error_msg=f"{type(self).__name__}: {error}")


class SharedActorClasses:
    """Converts classes to actors without a runtime environment.

    Tune gives its actors a separate runtime environment, for which Ray cannot reuse its idle workers.
    """

    def __init__(self) -> None:
        self.get = functools.cache(ray.remote)


class CachedRegistry(registry._Registry):
    """Caches Tune's registry, which reads a trial's function from Ray five times over the network."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[tuple[str, str], Any] = {}

    def register(self, category: str, key: str, value: Any) -> None:  # noqa: ANN401 - Tune's own
        """Register a value, replacing an earlier one."""
        self._values.pop((category, key), None)
        super().register(category, key, value)

    def unregister(self, category: str, key: str) -> None:
        """Remove a value."""
        self._values.pop((category, key), None)
        super().unregister(category, key)

    def contains(self, category: str, key: str) -> bool:
        """Return whether a value is registered."""
        return (category, key) in self._values or super().contains(category, key)

    def get(self, category: str, key: str) -> Any:  # noqa: ANN401 - Tune's own
        """Return a value. Raises `ValueError` for an unknown key."""
        if (category, key) not in self._values:
            self._values[category, key] = super().get(category, key)
        return self._values[category, key]


@contextmanager
def patched_tune(*, one_environment: bool) -> Iterator[None]:
    """Patch Tune within the block; it has no settings for any of this.

    Args:
        one_environment: Whether all workers have the environment of this process, as in a local cluster.
    """
    actor_classes = SharedActorClasses if one_environment else tune_controller._ActorClassCache
    changes: Sequence[tuple[Any, str, Any]] = (
        (tune_controller, "RayActorManager", ActorManager),
        (tune_controller, "_ActorClassCache", actor_classes),
        (registry, "_global_registry", CachedRegistry()),
        # Only Tune calls this, for Ray's usage statistics; it imports every installed tracker, which takes a second.
        (usage, "tag_callbacks", lambda _: None),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
