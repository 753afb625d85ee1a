"""The processes of Ray Tune: those that Ray keeps ready, and one that Ray ended for memory is one that was lost."""

import functools

import ray
from ray.air._internal import usage
from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import class_cache, tune_controller


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


def install(*, here: bool) -> None:
    """Have Tune work so; it has no setting for any of it. `here`: all processes have the environment of this one."""
    tune_controller.RayActorManager = Actors
    tune_controller._ActorClassCache = Plain if here else class_cache._ActorClassCache
    # Tune alone calls this, for Ray's count of which trackers are used, and imports each installed one: a second.
    usage.tag_callbacks = lambda _: None
