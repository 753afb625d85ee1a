"""Tasks by name. A new task is a file and an entry in this table.

A change of numerics in any of them increases `tasks` in `models.versions`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from models.settings import TaskSettings
from models.tasks.adversarial import Adversarial
from models.tasks.base import Outputs, Task
from models.tasks.classification import Classification
from models.tasks.consistency import make_consistency
from models.tasks.contrastive import Contrastive
from models.tasks.feature_distillation import FeatureDistillation
from models.tasks.localisation import Localisation
from models.tasks.masked_reconstruction import MaskedReconstruction
from models.tasks.reconstruction import Reconstruction
from models.tasks.self_distillation import SelfDistillation
from models.tasks.weak_labels import make_segmentation
from models.tasks.weak_labels.pseudo import PseudoLabels

tasks: Mapping[str, Callable[[Any, Outputs], Task]] = {
    "reconstruction": Reconstruction,
    "masked_reconstruction": MaskedReconstruction,
    "feature_distillation": FeatureDistillation,
    "contrastive": Contrastive,
    "self_distillation": SelfDistillation,
    "classification": Classification,
    "localisation": Localisation,
    "segmentation": make_segmentation,
    "adversarial": Adversarial,
    "consistency": make_consistency,
    "pseudo_labels": PseudoLabels,
}


def make_task(settings: TaskSettings, outputs: Outputs) -> Task:
    """Create the task for these settings. Raises `ValueError` if loss or class weights do not fit the outputs."""
    return tasks[settings.task](settings, outputs)
