"""One file a task; adding one is a file and a line here.

A change of numerics in any of them raises `tasks` in `models.versions`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from models.settings import TaskSettings
from models.tasks.adversarial import Adversarial
from models.tasks.base import Outputs, Task
from models.tasks.classification import Classification
from models.tasks.localisation import Localisation
from models.tasks.reconstruction import Reconstruction
from models.tasks.segmentation import Segmentation

tasks: Mapping[str, Callable[[Any, Outputs], Task]] = {
    "reconstruction": Reconstruction,
    "classification": Classification,
    "localisation": Localisation,
    "segmentation": Segmentation,
    "adversarial": Adversarial,
}


def make_task(settings: TaskSettings, outputs: Outputs) -> Task:
    """Make the task these settings name. Raises `ValueError` where loss or weights do not fit the outputs."""
    return tasks[settings.task](settings, outputs)
