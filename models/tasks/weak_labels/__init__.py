"""Segmentation that also learns from weak labels or pseudo-labels of images without masks."""

from models.settings import SegmentationSettings
from models.task_settings.weak_labels import WeakLabelSettings
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from models.tasks.weak_labels.task import WeakSegmentation


def make_segmentation(settings: SegmentationSettings, outputs: Outputs) -> Segmentation:
    """Create the task, with weak labels if `rest` names them. Raises `ValueError` if a setting does not fit."""
    if isinstance(settings, WeakLabelSettings) and settings.rest != "none":
        return WeakSegmentation(settings, outputs)
    return Segmentation(settings, outputs)
