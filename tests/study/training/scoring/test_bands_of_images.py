"""An image scored in bands has the scores of the entire image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from datasets.cache.ragged import RaggedArray
from datasets.loading.native import NativeImages
from datasets.loading.truth import TrueMasks
from datasets.settings import NATIVE, ImageSettings
from datasets.source import IGNORE, Index
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results.metrics.surface import ShapeSettings, shape_values
from study.config.evaluation import ClassThreshold
from study.training.scoring.batches import EvaluatedBatch, EvaluationSpec, predictions
from study.training.scoring.evaluate import score
from study.training.scoring.pixel_sums import PixelSums

HEIGHT, WIDTH, BLOCK = 430, 400, 10
NAMES = ("tumour", "stroma")
SHAPE = ShapeSettings(tolerance=1.0, lesion_iou=0.1)


def blocks(high: int, seed: int) -> np.ndarray:
    """Return random values (HEIGHT, WIDTH) below a limit, equal within squares."""
    small = np.random.default_rng(seed).integers(0, high, (HEIGHT // BLOCK, WIDTH // BLOCK), dtype=np.uint8)
    return np.repeat(np.repeat(small, BLOCK, axis=0), BLOCK, axis=1)


def evaluation(*, exclusive: bool) -> EvaluationSpec:
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=exclusive))
    assert isinstance(task, Segmentation)
    index = Index(
        ids=["a"], patients=["p"], categories=[""], official=[""], content=["a"], thumbnails=[""], faults=[""],
        annotation_digests={"masks": ["a"]}, classes=NAMES, overlapping=not exclusive, labels=(),
        heights=[HEIGHT], widths=[WIDTH],
    )  # fmt: skip
    image = (blocks(256, 0) ^ np.random.default_rng(1).integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8))[..., None]
    truth = blocks(4, 2)
    truth = np.where(truth == 3, IGNORE, truth) if exclusive else np.stack([truth == 1, truth > 1]).astype(np.uint8)
    return EvaluationSpec(
        task=task, index=index, truth=TrueMasks([truth].__getitem__), size=NATIVE, threshold=0.5, shape=SHAPE,
        images=NativeImages(images=RaggedArray(image.ravel(), [image.shape]), masks=None, foreground=None),
        image=ImageSettings(size=128, fit="patch"), limit=2**16,
    )  # fmt: skip


@pytest.mark.parametrize("exclusive", [True, False])
def test_scores_are_those_of_the_entire_image(exclusive: bool) -> None:
    spec = evaluation(exclusive=exclusive)
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2 + exclusive, 1)
    bands = list(predictions(network, replace(spec, shape=None), [0]))  # type: ignore[arg-type]
    assert len(bands) > 1
    image = EvaluatedBatch(
        outputs=spec.task.outputs, probabilities=torch.cat([band.probabilities for band in bands], dim=2),
        truth=torch.cat([band.truth for band in bands], dim=-2), threshold=0.5, channel_threshold=None,
        lines=slice(0, HEIGHT),
    )  # fmt: skip
    sums = PixelSums.of(image)
    truth, predicted = (masks[0].numpy() for masks in image.labelled_masks())
    scores, images = (table.to_pylist() for table in score(network, spec, {"test": [0], "validation": []}))  # type: ignore[arg-type]
    assert {name: images[0][name] for name in sums.images} == sums.image_values(0)
    for number, name in enumerate(NAMES):
        (row,) = (row for row in scores if row["class"] == name)
        assert {column: row[column] for column in sums.scores} == sums.score_values(0, number + exclusive)
        expected = shape_values(truth[number], predicted[number], SHAPE)
        assert tuple(row[column] for column in expected._fields) == pytest.approx(tuple(expected), nan_ok=True)


def test_the_threshold_of_a_class_is_selected_over_all_bands() -> None:
    class_threshold = ClassThreshold.model_validate({"class": NAMES[0], "false_positive_rate": 0.1})
    spec = replace(evaluation(exclusive=True), shape=None, class_threshold=class_threshold)
    torch.manual_seed(0)
    rows = score(nn.Conv2d(1, 3, 1), spec, {"test": [], "validation": [0]})[0].to_pylist()  # type: ignore[arg-type]
    (row,) = (row for row in rows if (row["class"], row["split"]) == (NAMES[0], "validation_thresholded"))
    assert row["fp"] <= 0.1 * (row["fp"] + row["tn"])
