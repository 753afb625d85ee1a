"""Weak labels of the images beyond the labelled fraction, as a stage learns from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.loading.prepare import Prepared
from datasets.loading.weak_labels import WeakLabels, WeakLabelSpec, weak_labels
from datasets.weak.areas import class_areas
from models.task_settings.weak_labels import weak_block_of, weak_kind_of
from study.planning.arms import StageConfig
from study.planning.dataset_view import DatasetView, RowSelection
from study.training.loader import ImageLabels


@dataclass(frozen=True, kw_only=True, eq=False)
class StageWeakLabels:
    """Weak labels of the images of a stage: those of pixels, and those of whole images."""

    pixels: WeakLabels
    images: ImageLabels
    key: str | None = None
    """Hash of what predicted labels depend on; None for labels that are not predicted."""


def stage_weak_labels(
    view: DatasetView,
    selection: RowSelection,
    step: StageConfig,
    arrays: Prepared,
    *,
    train: Sequence[int],
    rows: Sequence[int],
    cache: Path,
) -> StageWeakLabels | None:
    """Return the weak labels of some rows, None for a stage without weak labels, or without rows.

    Args:
        view: The data set.
        selection: What the stage reads of it.
        step: The stage.
        arrays: Its images and masks.
        train: Rows with masks that it trains on, from which areas of classes are measured.
        rows: Rows with weak labels.
        cache: The cache of prepared images.
    """
    kind, block = weak_kind_of(step.settings), weak_block_of(step.settings)
    if kind is None or not rows:
        return None
    spec = WeakLabelSpec(
        name=kind, seed=view.split_seed(selection.seed), image=step.image, points=block.points, radius=block.radius
    )
    labels = weak_labels(view.source, view.index, rows, spec, shapes=arrays.shapes, cache=cache)
    masks = arrays.targets
    areas = None
    if block.size_prior and "size_prior" in block.values_for(kind) and masks is not None:
        areas = class_areas(masks.__getitem__, train, view.index.classes)
    images = ImageLabels(present=labels.present, box_classes=labels.box_classes, areas=areas)
    return StageWeakLabels(pixels=labels, images=images)
