"""Semi-supervised segmentation by consistency of predictions, by method.

A new method is a file and an entry in this table, and its name in `models.task_settings.consistency`.
"""

from collections.abc import Callable, Mapping

from models.task_settings.consistency import ConsistencyMethod, ConsistencySettings
from models.tasks.base import Outputs
from models.tasks.consistency.base import Consistency
from models.tasks.consistency.cross_pseudo import CrossPseudo
from models.tasks.consistency.fixmatch import FixMatch
from models.tasks.consistency.mean_teacher import MeanTeacher
from models.tasks.consistency.unimatch import UniMatch

methods: Mapping[ConsistencyMethod, Callable[[ConsistencySettings, Outputs], Consistency]] = {
    "mean_teacher": MeanTeacher,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "cross_pseudo": CrossPseudo,
}


def make_consistency(settings: ConsistencySettings, outputs: Outputs) -> Consistency:
    """Create the task of the method. Raises `ValueError` if loss or class weights do not fit the outputs."""
    return methods[settings.consistency.method](settings, outputs)
