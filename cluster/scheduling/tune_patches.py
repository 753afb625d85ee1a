"""Changes to Ray Tune: it uses processes that Ray keeps ready, bears that Ray ends one for memory, asks Ray less."""

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


class Actors(RayActorManager):
    """Tells Tune of such an end as of any other; it knows no error of that kind, and would end the whole run."""

    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        short = isinstance(exception, OutOfMemoryError)
        super()._actor_task_failed(tracked_actor_task, Shortage(exception) if short else exception)


class Shortage(RayActorError):  # noqa: N818 - a state of a node, not a bug
    """The memory of a node was short, and Ray ended a process there."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error_msg=f"{type(self).__name__}: {error}")


class Plain:
    """Makes actors of classes, in the environment that processes have anyway.

    Tune gives them one of their own, in which none of the processes that Ray keeps ready can become one.
    """

    def __init__(self) -> None:
        self.get = functools.cache(ray.remote)


class Registry(registry._Registry):
    """What Tune has registered, read from Ray once: Tune asks for a trial's function five times, over the network."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[str, str], Any] = {}

    def register(self, category: str, key: str, value: Any) -> None:  # noqa: ANN401 - Tune's own
        """Register, also in place of what was there."""
        self._known.pop((category, key), None)
        super().register(category, key, value)

    def unregister(self, category: str, key: str) -> None:
        """Forget a value."""
        self._known.pop((category, key), None)
        super().unregister(category, key)

    def contains(self, category: str, key: str) -> bool:
        """Return whether there is such a value."""
        return (category, key) in self._known or super().contains(category, key)

    def get(self, category: str, key: str) -> Any:  # noqa: ANN401 - Tune's own
        """Return a value; raises `ValueError` where there is none."""
        if (category, key) not in self._known:
            self._known[category, key] = super().get(category, key)
        return self._known[category, key]


@contextmanager
def adapted(*, here: bool) -> Iterator[None]:
    """Have Tune work so while the block lasts; it has no setting for any of it.

    `here`: all processes have the environment of this one.
    """
    changes: Sequence[tuple[Any, str, Any]] = (
        (tune_controller, "RayActorManager", Actors),
        (tune_controller, "_ActorClassCache", Plain if here else tune_controller._ActorClassCache),
        (registry, "_global_registry", Registry()),
        # Tune alone calls this, for Ray's count of which trackers are used, and imports each installed one: a second.
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
