"""Pseudo-labels of the images without masks of a stage: what its teachers predict for them before it trains."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from datasets.cache.arrays import PREPARED, CachedArray, Layout, open_entry
from datasets.loading.prepare import BUDGET_BYTES, Prepared, prepared_entries
from datasets.loading.weak_labels import MASKS, WeakLabels, pseudo_label_layout
from datasets.source import IGNORE, Index
from datasets.splits.assignment import fingerprint
from datasets.targets import Fit
from datasets.versions import VERSIONS as DATASETS
from models.task_settings.pseudo_labels import PseudoLabelBlock, pseudo_labels_of
from models.tasks.weak_labels.pseudo import pseudo_labels
from models.versions import PSEUDO_LABELS
from models.versions import VERSIONS as MODELS
from study.errors import ConfigError, Problem
from study.planning.arms import StageConfig
from study.planning.digest import Json, digest
from study.planning.graph import PlannedStage
from study.store.atomic import hash_of
from study.store.store import Store
from study.training.load_model import Model, load_model
from study.training.loader import ImageLabels, to_images
from study.training.prediction.views import ORIGINAL, mean_probabilities
from study.training.weak_labels import StageWeakLabels

BATCH = 8
CHUNK_BYTES = 2**26
"""Maximum memory of the probabilities that are summed over several teachers, at least those of one batch."""


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The images that are labelled, by which networks, and how."""

    node: PlannedStage
    block: PseudoLabelBlock
    index: Index
    arrays: Prepared
    rows: Sequence[int]
    store: Store
    device: torch.device
    chunk_bytes: int = CHUNK_BYTES

    @property
    def layout(self) -> Layout:
        """Return shape and type of the labels of the images, in their order."""
        shape = self.node.step.image.shape
        return pseudo_label_layout(self.index, len(self.rows), shape, probabilities=self.block.labels == "soft")

    @property
    def key(self) -> str:
        """Return a hash of everything that the labels depend on."""
        parts: Json = {
            "versions": [DATASETS["preparation"], MODELS["network"], PSEUDO_LABELS],
            "teachers": [[teacher, hash_of(self.store.weights(teacher))] for teacher in self.node.teachers],
            "labels": [self.block.labels, self.block.confidence],
            "image": self.node.step.image.model_dump(mode="json"),
            "content": fingerprint(self.index, self.rows, ()),
            "rows": list(self.rows),
            "batch": self.batch_size,
            "machine": [torch.__version__, self._processor],
        }
        return digest(parts)

    @property
    def _processor(self) -> str:
        """Return what may change the last bits of predictions: the model of the GPU, or the number of threads."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {torch.get_num_threads()}"

    @property
    def batch_size(self) -> int:
        """Return the number of images that are predicted at once."""
        return min(BATCH, self.node.step.settings.batch_size)

    def fill(self, arrays: Mapping[str, CachedArray]) -> None:
        """Label the images. Raises `ConfigError` if a batch does not fit into the memory of the GPU."""
        try:
            with torch.random.fork_rng(devices=[]):  # networks are built with random weights
                models = [load_model(self.store, teacher) for teacher in self.node.teachers]
            self.label(models, arrays[MASKS])
        except torch.OutOfMemoryError as error:
            message = (
                f"out of memory while one network predicts the labels of {self.batch_size} images; allowed: what the "
                "device holds; lower image.size, or set batch_size below {self.batch_size}"
            )
            problem = Problem(path=f"stages.{self.node.step.stage}.pseudo_labels", message=message)
            raise ConfigError([problem], "study") from error
        finally:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def label(self, models: Sequence[Model], labels: CachedArray) -> None:
        """Write the labels that networks in evaluation mode predict, one of which at a time is on the device."""
        channels, fits = models[0].task.head_channels(), image_fits(self.arrays, self.node.step, self.rows)
        batch_bytes = 4 * self.batch_size * channels * math.prod(self.node.step.image.shape)
        size = self.batch_size * max(1, self.chunk_bytes // batch_bytes)
        for start in range(0, len(self.rows), size):
            probabilities = self._mean_probabilities(models, self.rows[start : start + size])
            predicted = pseudo_labels(probabilities, self.block, exclusive=models[0].outputs.exclusive).numpy()
            for place, of_image in enumerate(predicted, start):
                labels[place] = IGNORE  # the borders of letterbox
                fits[place].crop(labels[place])[...] = fits[place].crop(of_image)

    def _mean_probabilities(self, models: Sequence[Model], rows: Sequence[int]) -> torch.Tensor:
        total: torch.Tensor | None = None
        for model in models:
            model.network.to(self.device)
            probabilities = torch.cat([
                self._probabilities(model, rows[start : start + self.batch_size])
                for start in range(0, len(rows), self.batch_size)
            ])  # fmt: skip
            total = probabilities if total is None else total.add_(probabilities)
            model.network.cpu()
        assert total is not None, "there is at least one teacher"
        return total / len(models)

    def _probabilities(self, model: Model, rows: Sequence[int]) -> torch.Tensor:
        images = to_images(torch.from_numpy(self.arrays.images[list(rows)]), self.device)
        return mean_probabilities([model.network], model.task, images, [ORIGINAL]).cpu()


def stage_pseudo_labels(
    node: PlannedStage,
    index: Index,
    arrays: Prepared,
    rows: Sequence[int],
    *,
    store: Store,
    device: torch.device,
    cache: Path,
) -> StageWeakLabels | None:
    """Return the pseudo-labels of some rows, from the cache; None for a stage without them, or without rows.

    They are predicted without augmentation by networks in evaluation mode.

    Raises:
        DamagedStageError: The weights of a teacher are missing or damaged.
        ConfigError: They fit the network of another version, or the GPU is too small.
    """
    block, image = pseudo_labels_of(node.step.settings), node.step.image
    if block is None or not rows:
        return None
    labelling = Labelling(
        node=node, block=block, index=index, arrays=arrays, rows=rows, store=store, device=device
    )  # fmt: skip
    key, keep = labelling.key, prepared_entries(index, "mask", image, structure=None, cache=cache)
    entry = open_entry(cache / PREPARED / key, labelling.layout, labelling.fill, budget_bytes=BUDGET_BYTES, keep=keep)
    labels = WeakLabels(masks=entry[MASKS], mask_rows=range(len(rows)))
    return StageWeakLabels(pixels=labels, images=ImageLabels(), key=key)


def image_fits(arrays: Prepared, step: StageConfig, rows: Sequence[int]) -> list[Fit]:
    """Return the position of each image within the input of a stage."""
    return [Fit.of(step.image, *(int(length) for length in arrays.shapes[row])) for row in rows]


def labelled_share(labels: CachedArray, fits: Sequence[Fit]) -> float:
    """Return the share of pixels (of all classes, if these overlap) of images that have a pseudo-label."""
    shares = [float(np.mean(fit.crop(of_image) != IGNORE)) for of_image, fit in zip(labels, fits, strict=True)]
    return sum(shares) / len(shares)
