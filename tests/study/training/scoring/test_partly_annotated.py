"""Scores of classes annotated in some images or pixels, compared with manual values and with full annotation."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.loading.prepare import Prepared
from datasets.loading.truth import TrueMasks
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Index, Pixels
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results.metrics.compute import MetricSettings, replicate_rows
from results.metrics.surface import ShapeSettings, ShapeValues
from study.config.evaluation import ClassPostprocess, ClassThreshold, Postprocess
from study.training.scoring.annotators import scores_of_annotators
from study.training.scoring.batches import EvaluationSpec
from study.training.scoring.evaluate import score

IMAGES, SIZE = 8, 32
NAMES = ("tumour", "stroma")
SPLITS: dict[str, Any] = {"test": range(4), "validation": range(4, IMAGES)}
SHAPE = ShapeSettings(tolerance=1.0, lesion_iou=0.1)
Rows = dict[tuple[str, str, str], dict[str, Any]]


class Grey(nn.Module):
    """A network whose probability of both classes is the grey value."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return torch.logit(images[:, :1].clamp(0.001, 0.999)).repeat(1, 2, 1, 1) * self.scale


def images_and_masks() -> tuple[Pixels, Pixels]:
    """Return images with squares of several greys, and masks (images, 2, SIZE, SIZE) of the large ones."""
    random = np.random.default_rng(0)
    images, masks = np.zeros((IMAGES, SIZE, SIZE, 1), np.uint8), np.zeros((IMAGES, 2, SIZE, SIZE), np.uint8)
    for number in range(IMAGES):
        for side in (2, 3, 8):
            top, left = random.integers(0, SIZE - side, 2)
            images[number, top : top + side, left : left + side] = random.integers(100, 250)
            masks[number, side % 2, top : top + side, left : left + side] = side > 2
    return images, masks


def evaluation(
    masks: Pixels, *, postprocess: dict[str, Any] | None = None, volumes: list[str] | None = None, **changes: Any  # noqa: ANN401
) -> EvaluationSpec:  # fmt: skip
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES))
    assert isinstance(task, Segmentation)
    ids, empty = [f"{number:02}" for number in range(len(masks))], [""] * len(masks)
    index = Index(
        ids=ids, patients=ids, categories=empty, official=empty, content=ids, thumbnails=empty, faults=empty,
        annotation_digests={"masks": ids}, classes=NAMES, overlapping=True, labels=(),
        heights=[SIZE] * len(masks), widths=[SIZE] * len(masks), volumes=volumes or (),
    )  # fmt: skip
    settings = Postprocess.model_validate(postprocess or {})
    rules: dict[str, ClassPostprocess] = {name: settings.of(name) for name in NAMES if settings.of(name).has_effect}
    images = images_and_masks()[0]
    return replace(EvaluationSpec(
        task=task, index=index, truth=TrueMasks(masks.__getitem__), image=ImageSettings(size=SIZE), size=SIZE,
        images=Prepared(images=images, targets=None, shapes=np.full((IMAGES, 2), SIZE, np.int32)),
        threshold=0.5, shape=SHAPE, postprocess=rules,
    ), **changes)  # fmt: skip


def score_masks(
    spec: EvaluationSpec, splits: dict[str, Any] = SPLITS
) -> tuple[Rows, dict[tuple[str, str], dict[str, Any]]]:
    scores, images = score(Grey(), spec, splits)  # type: ignore[arg-type]
    return (
        {(row["split"], row["image"], row["class"]): row for row in scores.to_pylist()},
        {(row["split"], row["image"]): row for row in images.to_pylist()},
    )


def metrics(spec: EvaluationSpec) -> dict[tuple[str, str, str], tuple[float | None, int]]:
    rows = replicate_rows(*score(Grey(), spec, SPLITS), MetricSettings())  # type: ignore[arg-type]
    return {(row.aggregation, row.class_, row.metric): (row.value, row.images) for row in rows if row.split == "test"}


def partial() -> Pixels:
    """Return masks in which image 1 has no stroma, and the left half of image 2 no tumour annotated."""
    masks = images_and_masks()[1]
    masks[1, 1], masks[2, 0, :, : SIZE // 2] = IGNORE, IGNORE
    return masks


def test_unannotated_pixels_are_in_no_count() -> None:
    images, _ = images_and_masks()
    masks = partial()
    rows, of_images = score_masks(evaluation(masks))
    before, _ = score_masks(evaluation(images_and_masks()[1]))
    for (split, name, class_), row in rows.items():
        number, channel = int(name), NAMES.index(class_)
        known = masks[number, channel] != IGNORE
        predicted, truth = images[number, ..., 0] >= 128, masks[number, channel] == 1
        pairs = (predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth)
        assert [row[key] for key in ("tp", "fp", "fn", "tn")] == [int((pixels & known).sum()) for pixels in pairs]
        assert sum(row["positives"]) == (truth & known).sum()
        assert sum(row["positives"]) + sum(row["negatives"]) == known.sum()
        if known.all():
            assert repr(row) == repr(before[split, name, class_])
    for (_, name), row in of_images.items():
        assert sum(row["confidence_count"]) == (masks[int(name)] != IGNORE).sum()


def test_shapes_are_undefined_if_a_class_is_not_annotated_in_all_pixels() -> None:
    rows, _ = score_masks(evaluation(partial()))
    for (_, name, class_), row in rows.items():
        values = [row[column] for column in ShapeValues._fields]
        if (name, class_) in (("01", "stroma"), ("02", "tumour")):
            assert values == [None] * len(values)
        else:
            assert row["lesion_tp"] is not None


def test_scores_are_undefined_if_a_class_is_not_annotated_and_means_exclude_them() -> None:
    masks = images_and_masks()[1]
    masks[1, 1] = IGNORE
    masks[1, 0] = 0
    unknown, absent = metrics(evaluation(masks)), metrics(evaluation(np.where(masks == IGNORE, 0, masks)))
    predicted = images_and_masks()[0][..., 0] >= 128
    empty_is_one = np.array([
        2 * (predicted[number] & (masks[number, 1] == 1)).sum() / total
        if (total := predicted[number].sum() + (masks[number, 1] == 1).sum())
        else 1.0
        for number in range(4)
    ])  # fmt: skip
    assert unknown["case", "stroma", "dice_empty_is_one"] == (pytest.approx(empty_is_one[[0, 2, 3]].mean()), 3)
    assert absent["case", "stroma", "dice_empty_is_one"] == (pytest.approx(empty_is_one.mean()), 4)
    assert unknown["dataset", "stroma", "dice"][1] == 3
    assert absent["dataset", "stroma", "dice"][1] == 4
    false_positives = predicted[1].sum()
    assert false_positives > 0
    known = np.delete(np.arange(4), 1)
    intersection = (predicted[known] & (masks[known, 1] == 1)).sum()
    total = predicted[known].sum() + (masks[known, 1] == 1).sum()
    assert unknown["dataset", "stroma", "dice"][0] == pytest.approx(2 * intersection / total)
    assert absent["dataset", "stroma", "dice"][0] == pytest.approx(2 * intersection / (total + false_positives))
    # In image 1 only the tumour is annotated, and it is absent.
    assert unknown["case", "macro", "dice_empty_is_one"][1] == 4
    assert unknown["case", "macro", "dice"][1] == 3


def test_a_class_annotated_in_no_test_image_has_no_number_of_false_positives() -> None:
    masks = images_and_masks()[1]
    masks[:4, 1] = IGNORE
    unknown, absent = metrics(evaluation(masks)), metrics(evaluation(np.where(masks == IGNORE, 0, masks)))
    assert unknown["dataset", "stroma", "false_positive_pixels"] == (None, 0)
    value, images = absent["dataset", "stroma", "false_positive_pixels"]
    assert images == 4
    assert value is not None
    assert value > 0
    assert unknown["dataset", "macro", "dice"][0] == unknown["dataset", "tumour", "dice"][0]


def test_a_volume_with_an_unannotated_slice_has_counts_and_no_shapes() -> None:
    volumes = ["a", "a", "b", "b", "c", "c", "d", "d"]
    masks = images_and_masks()[1]
    masks[1, 0] = IGNORE
    rows, _ = score_masks(evaluation(masks, volumes=volumes))
    before, _ = score_masks(evaluation(images_and_masks()[1], volumes=volumes))
    assert rows["test", "00", "tumour"]["nsd"] is None
    assert rows["test", "00", "tumour"]["tp"] == before["test", "00", "tumour"]["tp"]
    for key in (("test", "00", "stroma"), ("test", "02", "tumour"), ("validation", "04", "tumour")):
        assert repr(rows[key]) == repr(before[key])


POSTPROCESS: list[dict[str, Any]] = [
    {"empty": "auto"}, {"smallest_area": "auto"}, {"largest_component": "auto"},
    {"empty": "auto", "smallest_area": "auto", "largest_component": "auto"},
]  # fmt: skip


@pytest.mark.parametrize("postprocess", POSTPROCESS)
def test_rules_are_selected_on_the_validation_images_that_annotate_the_class(postprocess: dict[str, Any]) -> None:
    masks = images_and_masks()[1]
    masks[4:6, 0] = IGNORE
    validation = {"test": range(4), "validation": range(6, IMAGES)}
    spec = evaluation(masks, postprocess=postprocess)
    tables = [score(Grey(), spec, splits)[0] for splits in (SPLITS, validation)]  # type: ignore[arg-type]
    rules = [table.schema.metadata[b"evaluation"].decode() for table in tables]
    stroma_free = [text.partition('"stroma"')[0] for text in rules]
    assert stroma_free[0] == stroma_free[1]


@pytest.mark.parametrize("postprocess", POSTPROCESS)
def test_no_rule_is_selected_for_a_class_annotated_in_no_validation_image(postprocess: dict[str, Any]) -> None:
    masks = images_and_masks()[1]
    masks[4:, 0] = IGNORE
    table = score(Grey(), evaluation(masks, postprocess=postprocess), SPLITS)[0]  # type: ignore[arg-type]
    record = table.schema.metadata[b"evaluation"].decode()
    assert '"tumour": {"empty": null, "smallest_area": 0, "largest_component": false}' in record


def chosen_threshold(masks: Pixels, validation: range) -> float | None:
    settings = ClassThreshold.model_validate({"class": "tumour", "false_positive_rate": 0.02})
    rows, _ = score_masks(evaluation(masks, class_threshold=settings), {"test": range(4), "validation": validation})
    return next((row["threshold"] for (split, _, _), row in rows.items() if split == "test_thresholded"), None)


def test_the_threshold_of_a_class_is_selected_on_the_images_that_annotate_it() -> None:
    masks = images_and_masks()[1]
    masks[5:, 0] = IGNORE
    assert chosen_threshold(masks, range(4, IMAGES)) == chosen_threshold(masks, range(4, 5))
    assert chosen_threshold(masks, range(4, 5)) is not None
    masks[4, 0] = IGNORE
    assert chosen_threshold(masks, range(4, IMAGES)) is None


def test_agreement_is_computed_on_pixels_annotated_by_both() -> None:
    first, second = images_and_masks()[1], np.roll(images_and_masks()[1], 1, axis=-1)
    first[0, 0], second[1, 0], second[2, 1, :16] = IGNORE, IGNORE, IGNORE
    spec = evaluation(first)
    annotations = {name: (TrueMasks(masks.__getitem__), frozenset(range(4))) for name, masks in
                   (("one", first), ("two", second))}  # fmt: skip
    *_, (scores, _) = scores_of_annotators(Grey(), spec, annotations, range(4))  # type: ignore[arg-type]
    rows = {(int(row["image"]), row["class"]): row for row in scores.to_pylist()}
    for (image, class_), row in rows.items():
        first_masks, second_masks = (masks[image, NAMES.index(class_)] for masks in (first, second))
        known = (first_masks != IGNORE) & (second_masks != IGNORE)
        assert row["tp"] == ((first_masks == 1) & (second_masks == 1) & known).sum()
        assert row["fp"] == ((first_masks == 0) & (second_masks == 1)).sum()
        assert row["tp"] + row["fp"] + row["fn"] + row["tn"] == known.sum()
    assert math.isclose(rows[0, "tumour"]["tn"], 0)
