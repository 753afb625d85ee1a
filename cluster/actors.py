"""The processes of Ray Tune: one that Ray ended for memory is one that was lost."""

from ray.air.execution._internal import RayActorManager
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import OutOfMemoryError, RayActorError
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


def install() -> None:
    """Have Tune use them: it takes no others."""
    tune_controller.RayActorManager = Actors
