"""What is held back by a class threshold."""

from typing import Any

import numpy as np
import pytest
import torch

from datasets.prepare import Prepared
from datasets.sample import Index
from datasets.settings import ImageSettings
from models.architectures.parts import Blueprint
from models.build import build
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from study.evaluate import Examination, score
from study.stages import ClassThreshold

SIZE, IMAGES = 32, 6
NAMES = ("soft tissue", "bone")
SPLITS: dict[str, Any] = {"test": range(3), "validation": range(3, IMAGES)}
RATE = 0.1


def examination(task: Segmentation, class_threshold: ClassThreshold | None) -> Examination:
    random = np.random.default_rng(0)
    ids = [str(number) for number in range(IMAGES)]
    empty = [""] * IMAGES
    index = Index(
        ids=ids, patients=ids, categories=empty, official=empty, content=ids, thumbnails=empty, faults=empty,
        offers={"masks": ids}, classes=NAMES, overlapping=False, labels=(),
    )  # fmt: skip
    images = random.integers(0, 256, (IMAGES, SIZE, SIZE, 1), dtype=np.uint8)
    shapes = np.full((IMAGES, 2), SIZE, np.int32)
    truth = random.integers(0, 3, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    return Examination(
        task=task, index=index, prepared=Prepared(images=images, targets=None, shapes=shapes), truth=truth,
        image=ImageSettings(size=SIZE), size=SIZE, threshold=0.5, class_threshold=class_threshold,
    )  # fmt: skip


def scored(class_threshold: ClassThreshold | None) -> list[dict[str, Any]]:
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=True))
    assert isinstance(task, Segmentation)
    torch.manual_seed(0)
    network = build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=3))
    rows: list[dict[str, Any]] = score(network, examination(task, class_threshold), SPLITS)[0].to_pylist()
    return rows


def total(rows: list[dict[str, Any]], split: str, count: str, name: str = NAMES[0]) -> int:
    return sum(row[count] for row in rows if (row["split"], row["class"]) == (split, name))


HELD = ClassThreshold.model_validate({"class": NAMES[0], "false_positive_rate": RATE})


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return scored(HELD)


def test_without_a_class_threshold_there_is_nothing_beside_the_splits() -> None:
    assert {row["split"] for row in scored(None)} == {"test", "validation"}


def test_scores_without_it_stay_and_those_with_it_stand_beside(rows: list[dict[str, Any]]) -> None:
    before = [row for row in rows if not row["split"].endswith("_thresholded")]

    assert before == scored(None)
    assert {row["split"] for row in rows} == {f"{split}{end}" for split in SPLITS for end in ("", "_thresholded")}


def test_validation_images_keep_the_rate_and_would_not_one_step_lower(rows: list[dict[str, Any]]) -> None:
    (threshold,) = {row["threshold"] for row in rows if row["threshold"] is not None}
    negatives = total(rows, "validation", "fp") + total(rows, "validation", "tn")

    assert total(rows, "validation", "fp") > RATE * negatives
    assert total(rows, "validation_thresholded", "fp") <= RATE * negatives
    called = [
        count
        for row in rows
        if row["split"] == "validation" and row["class"] == NAMES[0]
        for count in [row["negatives"][round(threshold * 200) - 1]]
    ]
    assert total(rows, "validation_thresholded", "fp") + sum(called) > RATE * negatives


def test_what_the_class_loses_on_test_images_others_gain(rows: list[dict[str, Any]]) -> None:
    gained = total(rows, "test_thresholded", "fp", "bone") + total(rows, "test_thresholded", "tp", "bone")

    assert total(rows, "test_thresholded", "fp") < total(rows, "test", "fp")
    assert gained >= total(rows, "test", "fp", "bone") + total(rows, "test", "tp", "bone")


def test_the_threshold_stands_with_its_class_alone(rows: list[dict[str, Any]]) -> None:
    held = {(row["class"], row["split"]) for row in rows if row["threshold"] is not None}

    assert held == {(NAMES[0], "test_thresholded"), (NAMES[0], "validation_thresholded")}
