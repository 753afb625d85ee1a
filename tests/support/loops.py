"""A loop on made-up arrays: small, exact, and the same for every task."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import Examples, WholeImages
from datasets.loading.strong_views import StrongViews
from datasets.loading.views import Views
from datasets.settings import ImageSettings
from datasets.source import IGNORE
from datasets.targets import TargetArray
from models.adaptation import adapt
from models.architectures.heads import AverageHead, FeatureHead, ProjectionHead
from models.architectures.parts import NetworkParts
from models.build import build
from models.network import Network
from models.settings import pool_of, unlabelled_start_of
from models.task_settings.views import ViewSettings, views_of
from models.task_settings.weak_labels import weak_kind_of
from models.tasks import make_task
from models.tasks.base import Outputs
from study.config.schema import Link
from study.config.stages import (
    AdversarialStage,
    ClassificationStage,
    ConsistencyStage,
    ContrastiveStage,
    FeatureDistillationStage,
    LocalisationStage,
    MaskedReconstructionStage,
    PseudoLabelStage,
    ReconstructionStage,
    SegmentationStage,
    SelfDistillationStage,
    Stage,
)
from study.planning.blueprint import blueprint
from study.training.checkpoint import Checkpoints
from study.training.loader import ImageLabels, StageData, WorkerContext
from study.training.trainer import Trained, TrainingLoop

SIZE, IMAGES = 32, 10
TRAIN, VALIDATION = range(8), range(8, IMAGES)
UNLABELLED = range(3, 8)
WHOLE = Link(stage="one")
STAGES = {
    "reconstruction": ReconstructionStage,
    "masked_reconstruction": MaskedReconstructionStage,
    "feature_distillation": FeatureDistillationStage,
    "classification": ClassificationStage,
    "contrastive": ContrastiveStage,
    "self_distillation": SelfDistillationStage,
    "localisation": LocalisationStage,
    "segmentation": SegmentationStage,
    "adversarial": AdversarialStage,
    "consistency": ConsistencyStage,
    "pseudo_labels": PseudoLabelStage,
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A stage on the made-up arrays."""

    settings: Stage
    link: Link = WHOLE
    dropout: float = 0.0
    validates: bool = True
    has_unlabelled: bool = True
    """Whether there are images without masks for tasks that use them."""

    def loop(self, work: Path, *, crash_after: int | None = None, weights_seed: int = 1) -> Trained:
        """Train until done, or until the report of an epoch raises `Killed`."""
        loop = self.make(crash_after=crash_after, weights_seed=weights_seed)
        return loop.run(Checkpoints(work=work))

    def make(
        self, *, crash_after: int | None = None, weights_seed: int = 1, rank: int = 0, world: int = 1
    ) -> TrainingLoop:
        settings = self.settings
        targets = _targets(settings.task)
        images = _images()
        task = make_task(settings, Outputs(names=_names(settings.task)))
        torch.manual_seed(weights_seed)

        def make_network() -> Network:
            network = _network(settings, task.head_channels(), dropout=self.dropout)
            adapt(network, settings.adapt, torch.zeros(1, 1, SIZE, SIZE))
            return network

        network = make_network()

        def report(scores: Mapping[str, float]) -> None:
            if crash_after is not None and scores["epoch"] > crash_after:
                raise Killed

        augmenter = Augmenter(settings.augment, settings.target, (SIZE, SIZE))

        def examples(rows: range, *, trains: bool) -> Examples:
            views = views_of(settings)
            single = WholeImages(images, targets, rows, augmenter if trains or views else None)
            return Views([single] * views, seed=5) if views else single

        batches = Batches(
            examples(TRAIN, trains=True), batch_size=settings.batch_size, seed=5, parts=settings.accumulate
        )
        held_out = Batches(examples(VALIDATION, trains=False), batch_size=settings.batch_size, seed=5)
        pool: Examples = WholeImages(images, None, UNLABELLED)
        if isinstance(settings, ConsistencyStage):
            pool = strong_views(settings, WholeImages(images, None, UNLABELLED, augmenter))
        if weak_kind_of(settings) in ("points", "scribble"):
            pool = WholeImages(images, scribbles(targets), UNLABELLED, augmenter)
        if weak_kind_of(settings) == "box":
            pool = WholeImages(images, BOXES, UNLABELLED, Augmenter(settings.augment, "box", (SIZE, SIZE)))
        if isinstance(settings, PseudoLabelStage):
            augmenter = Augmenter(settings.augment, "mask", (SIZE, SIZE), outside=IGNORE)
            pool = WholeImages(images, soft_or_hard(settings, targets), UNLABELLED, augmenter)
        unlabelled = Batches(pool, batch_size=settings.batch_size, seed=5)
        material = StageData(
            training=batches,
            validation=held_out if self.validates else None,
            unlabelled=unlabelled if self.has_unlabelled and pool_of(settings) is not None else None,
            weak=weak_labels(settings) if isinstance(settings, SegmentationStage | PseudoLabelStage) else None,
            unlabelled_start=unlabelled_start_of(settings),
        )
        context = WorkerContext(report=report, rank=rank, world=world)
        return TrainingLoop(
            network, task, settings, self.link, material, seed=5, context=context, another_network=make_network
        )


def strong_views(settings: ConsistencyStage, examples: Examples) -> StrongViews:
    """Return the views that a stage takes of images without masks."""
    block = settings.consistency
    augmenter = Augmenter(block.strong_augment, "image", (SIZE, SIZE))
    return StrongViews(examples, augmenter, strong=block.strong_views, cutmix=block.cutmix)


def scribbles(masks: TargetArray | None) -> TargetArray:
    """Return masks of which a fifth of the pixels is annotated."""
    assert masks is not None
    is_annotated = np.random.default_rng(8).random(masks.shape) < 0.2
    return np.asarray(np.where(is_annotated, masks, IGNORE), np.uint8)


def soft_or_hard(settings: PseudoLabelStage, masks: TargetArray | None) -> TargetArray:
    """Return pseudo-labels: masks, or probabilities near them, of which a fifth of the pixels is ignored."""
    assert masks is not None
    labels = masks * 200 + 20 if settings.pseudo_labels.labels == "soft" else masks
    is_ignored = np.random.default_rng(8).random(masks.shape) < 0.2
    return np.asarray(np.where(is_ignored, IGNORE, labels), np.uint8)


def weak_labels(settings: SegmentationStage | PseudoLabelStage) -> ImageLabels | None:
    """Return the weak labels of whole images, None if a stage uses neither weak labels nor pseudo-labels."""
    if isinstance(settings, PseudoLabelStage):
        return ImageLabels()
    kind = weak_kind_of(settings)
    if kind is None:
        return None
    if kind == "scribble":
        return ImageLabels()
    present = np.random.default_rng(9).choice([0, 1, np.nan], (len(UNLABELLED), len(_names("segmentation"))))
    return ImageLabels(
        present=present.astype(np.float32),
        box_classes=np.arange(2 * len(UNLABELLED)).reshape(-1, 2) % 2 if kind == "box" else None,
        areas=np.full((present.shape[1], 2), 0.1, np.float32),
    )


def boxes() -> TargetArray:
    """Return two boxes of each image, of which some images have one."""
    corners = np.random.default_rng(7).random((IMAGES, 2, 2, 2)).astype(np.float32)
    corners.sort(axis=2)
    made = corners[:, :, [0, 0, 1, 1], 0], corners[:, :, [0, 1, 1, 0], 1]
    quadrilaterals = np.stack(made, axis=-1)
    quadrilaterals[::3, 1] = np.nan
    return quadrilaterals


BOXES = boxes()


class Killed(BaseException):
    """The process ends here."""


_WITHOUT_ANNOTATION = (
    "reconstruction", "masked_reconstruction", "feature_distillation", "contrastive", "self_distillation",
)  # fmt: skip


class Encoder(nn.Module):
    """A map at full and one at half resolution; a real encoder would only make the same test slower."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = _block(1, 8, stride=1), _block(8, 16, stride=2)

    def forward(self, images: Tensor) -> list[Tensor]:
        shallow = self.first(images)
        return [shallow, self.second(shallow)]


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = _block(24, 16, stride=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        shallow, deep = features
        merged: Tensor = self.block(torch.cat([shallow, nn.functional.interpolate(deep, scale_factor=2.0)], dim=1))
        return merged


def _block(inputs: int, outputs: int, *, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def _network(settings: Stage, outputs: int, *, dropout: float) -> Network:
    if isinstance(settings, MaskedReconstructionStage) and settings.method == "mae":
        image = ImageSettings(size=SIZE, channels=1)
        return build(blueprint(settings, image, None, "tu-test_vit", outputs))
    maps = settings.task == "masked_reconstruction" or "decoder" in settings.trains
    answer: nn.Module = nn.Conv2d(16, outputs, 1) if maps else AverageHead(16, outputs)
    if settings.task == "feature_distillation":
        answer = FeatureHead(16, outputs)
    if isinstance(settings, ViewSettings):
        answer = ProjectionHead(16, settings.hidden, outputs)
    parts = NetworkParts(
        encoder=Encoder(), decoder=Decoder() if maps else None, head=nn.Sequential(nn.Dropout(dropout), answer)
    )
    return Network(parts, mean=[0.2], std=[0.3], stages=[["first.0.weight"], ["second.0.weight"]])


def _images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 60, (IMAGES, SIZE, SIZE, 1), dtype=np.uint8)
    for number in range(IMAGES):
        images[number, 4 + number : 14 + number, 3 : 8 + 2 * number] += 150
    return images


def _targets(task: str) -> np.ndarray[Any, Any] | None:
    if task in _WITHOUT_ANNOTATION:
        return None
    if task == "classification":
        labels = np.array([[number % 2, number % 3 == 0] for number in range(IMAGES)], dtype=np.float32)
        labels[3, 1] = np.nan
        return labels
    if task == "localisation":
        points = [[(5.5 + number) / SIZE, (9 + number) / SIZE] for number in range(IMAGES)]
        return np.array(points, dtype=np.float32)
    masks = (_images()[..., 0] > 100).astype(np.uint8)
    return np.stack([masks, masks[:, ::-1]], axis=1)


def _names(task: str) -> tuple[str, ...]:
    if task in _WITHOUT_ANNOTATION:
        return ("grey",)
    return ("x", "y") if task == "localisation" else ("bright", "mirrored")


def stage(task: str, **changes: object) -> Stage:
    defaults: dict[str, object] = {"data": "made up", "batch_size": 4}
    length = {} if "steps" in changes else {"epochs": 4}
    made: Stage = STAGES[task].model_validate(defaults | length | changes)
    return made
