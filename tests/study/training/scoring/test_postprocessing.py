"""Scores of post-processed masks: those of the masks, entire volumes, and rules from validation images only."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from torch import Tensor, nn

from datasets.cache.ragged import RaggedArray
from datasets.loading.native import NativeImages
from datasets.loading.prepare import Prepared
from datasets.loading.truth import TrueMasks
from datasets.settings import NATIVE, ImageSettings
from datasets.source import IGNORE, Index
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results import schema
from results.metrics.surface import ShapeSettings, shape_values
from study.config.evaluation import ClassPostprocess, Postprocess
from study.training.prediction import masks as masks_module
from study.training.scoring.batches import EvaluationSpec
from study.training.scoring.evaluate import score

IMAGES, SIZE = 12, 32
SPLITS = {"test": range(6), "validation": range(6, 12)}
SHAPE = ShapeSettings(tolerance=1.0, lesion_iou=0.1)
NAMES = ("tumour", "stroma")


class Grey(nn.Module):
    """A network whose probability of the first class is the grey value; the second class is displaced."""

    def __init__(self, classes: int = 1, *, exclusive: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.classes, self.exclusive = classes, exclusive

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.logit(images[:, :1].clamp(0.001, 0.999)) * self.scale
        of_classes = [logits, torch.roll(logits, 5, dims=-1)][: self.classes]
        return torch.cat([0 * logits, *of_classes] if self.exclusive else of_classes, dim=1)


def images_and_truth() -> tuple[np.ndarray, np.ndarray]:
    """Return images with spots of many sizes; the truth has the large spots, and is empty in every second image."""
    random = np.random.default_rng(0)
    images, truth = np.zeros((IMAGES, SIZE, SIZE), np.uint8), np.zeros((IMAGES, SIZE, SIZE), np.uint8)
    for number in range(IMAGES):
        for side in (1, 2, 3, 7) if number % 2 else (1, 2, 3):
            top, left = random.integers(0, SIZE - side, 2)
            images[number, top : top + side, left : left + side] = random.integers(140, 250)
            truth[number, top : top + side, left : left + side] = side == 7
    return images, truth


def by_class(postprocess: dict[str, Any], names: tuple[str, ...]) -> dict[str, ClassPostprocess]:
    settings = Postprocess.model_validate(postprocess)
    return {name: settings.of(name) for name in names if settings.of(name).has_effect}


def evaluation(
    postprocess: dict[str, Any], *, exclusive: bool = False, names: tuple[str, ...] = NAMES[:1],
    volumes: list[str] | None = None, truth: np.ndarray | None = None,
) -> EvaluationSpec:  # fmt: skip
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=names, exclusive=exclusive))
    assert isinstance(task, Segmentation)
    ids, empty = [f"{number:02}" for number in range(IMAGES)], [""] * IMAGES
    index = Index(
        ids=ids, patients=ids, categories=empty, official=empty, content=ids, thumbnails=empty, faults=empty,
        annotation_digests={"masks": ids}, classes=names, overlapping=not exclusive, labels=(),
        heights=[SIZE] * IMAGES, widths=[SIZE] * IMAGES, volumes=volumes or (),
    )  # fmt: skip
    images, masks = images_and_truth()
    masks = masks if truth is None else truth
    if not exclusive:
        masks = np.stack([masks == number + 1 for number in range(len(names))], axis=1).astype(np.uint8)
    return EvaluationSpec(
        task=task, index=index, truth=TrueMasks(masks.__getitem__), image=ImageSettings(size=SIZE), size=SIZE,
        images=Prepared(images=images[..., None], targets=None, shapes=np.full((IMAGES, 2), SIZE, np.int32)),
        threshold=0.5, shape=SHAPE, postprocess=by_class(postprocess, names),
    )  # fmt: skip


def score_masks(spec: EvaluationSpec) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    outputs = spec.task.outputs
    network = Grey(len(outputs.names), exclusive=outputs.exclusive)
    scores, images = score(network, spec, SPLITS)  # type: ignore[arg-type]
    return scores.to_pylist(), images.to_pylist(), json.loads(scores.schema.metadata[schema.EVALUATION])


def rows_of(rows: list[dict[str, Any]], *splits: str) -> str:
    """Return the rows of some splits as text, in which NaN equals NaN."""
    return repr([row for row in rows if row["split"] in splits])


def without_small(mask: np.ndarray, area: int) -> np.ndarray:
    labels, _ = label(mask, np.ones((3,) * mask.ndim))
    return np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) >= area)) & mask


def test_scores_without_post_processing_are_unchanged() -> None:
    rows, images, record = score_masks(evaluation({"smallest_area": 4}))
    before, images_before, no_rules = score_masks(evaluation({}))
    assert rows_of(rows, *SPLITS) == repr(before)
    assert rows_of(images, *SPLITS) == repr(images_before)
    assert {row["split"] for row in rows} == {*SPLITS, "test_postprocessed", "validation_postprocessed"}
    assert record == {
        "size": SIZE,
        "tta": [],
        "postprocess": {"tumour": {"empty": None, "smallest_area": 4, "largest_component": False}},
    }
    assert no_rules == {"size": SIZE, "tta": [], "postprocess": {}}


@pytest.mark.parametrize("exclusive", [False, True])
def test_scores_are_those_of_the_processed_masks(exclusive: bool) -> None:
    spec = evaluation({"smallest_area": 5}, exclusive=exclusive)
    images, truth = images_and_truth()
    rows, image_rows, _ = score_masks(spec)
    usual = {row["image"]: row for row in rows if row["split"] == "test" and row["class"] == "tumour"}
    for row in rows:
        if row["split"] != "test_postprocessed" or row["class"] != "tumour":
            continue
        number = int(row["image"])
        mask, true = without_small(images[number] >= 128, 5), truth[number] == 1
        assert (row["tp"], row["fp"], row["fn"]) == ((mask & true).sum(), (mask & ~true).sum(), (true & ~mask).sum())
        assert tuple(row[name] for name in ("hd95", "assd", "nsd")) == pytest.approx(
            tuple(shape_values(true, mask, SHAPE))[:3], nan_ok=True
        )
        for name in ("positives", "negatives", "score_sums"):
            assert row[name] == usual[row["image"]][name]
    confusions = [row["confusion"] for row in image_rows if row["split"] == "test_postprocessed"]
    if exclusive:
        mask, true = without_small(images[1] >= 128, 5), truth[1] == 1
        assert confusions[1] == [int(part.sum()) for part in (~mask & ~true, mask & ~true, ~mask & true, mask & true)]
    assert all(row["foreground_count"] is None for row in image_rows if row["split"].endswith("_postprocessed"))


def test_of_several_exclusive_classes_removed_pixels_become_background() -> None:
    spec = evaluation({"smallest_area": {"tumour": 10**6}}, exclusive=True, names=NAMES)
    rows, _, _ = score_masks(spec)

    def total(split: str, name: str) -> int:
        return sum(row["tp"] + row["fp"] for row in rows if (row["split"], row["class"]) == (split, name))

    assert total("test_postprocessed", "tumour") == 0 < total("test", "tumour")
    assert total("test_postprocessed", "stroma") == total("test", "stroma") > 0
    assert total("test_postprocessed", "background") == total("test", "background") + total("test", "tumour")


def test_a_volume_is_processed_at_once() -> None:
    volumes = [f"volume {number // 3}" for number in range(IMAGES)]
    rows, _, _ = score_masks(evaluation({"smallest_area": 20}, volumes=volumes))
    images, truth = images_and_truth()
    processed = np.concatenate([without_small(images[first : first + 3] >= 128, 20) for first in range(0, IMAGES, 3)])
    by_slice = np.stack([without_small(image >= 128, 20) for image in images])
    assert (processed != by_slice).any()
    for row in rows:
        if row["split"] == "test_postprocessed":
            number = int(row["image"])
            assert row["tp"] + row["fp"] == processed[number].sum()
            assert row["tp"] == (processed[number] & (truth[number] == 1)).sum()


def test_rules_are_selected_on_validation_images_only() -> None:
    auto = {"empty": "auto", "smallest_area": "auto", "largest_component": "auto"}
    truth = images_and_truth()[1]
    poisoned = truth.copy()
    poisoned[list(SPLITS["test"])] = 1 - poisoned[list(SPLITS["test"])]
    (rows, _, record), (poisoned_rows, _, same) = (
        score_masks(evaluation(auto, truth=part)) for part in (truth, poisoned)
    )
    assert record == same
    rule = record["postprocess"]["tumour"]
    assert rule["empty"] is not None or rule["smallest_area"] > 0
    for split in ("validation", "validation_postprocessed"):
        assert rows_of(rows, split) == rows_of(poisoned_rows, split)
    assert rows_of(rows, "test") != rows_of(poisoned_rows, "test")
    changed = truth.copy()
    changed[list(SPLITS["validation"])] = images_and_truth()[0][list(SPLITS["validation"])] >= 128
    assert score_masks(evaluation(auto, truth=changed))[2] != record  # validation masks matter


def test_selected_rules_do_not_lower_the_mean_dice_of_validation_images() -> None:
    rows, _, _ = score_masks(evaluation({"smallest_area": "auto"}))

    def mean(split: str) -> float:
        values = [
            2 * row["tp"] / total if (total := 2 * row["tp"] + row["fp"] + row["fn"]) else 1.0
            for row in rows
            if row["split"] == split
        ]
        return float(np.mean(values))

    assert mean("validation_postprocessed") > mean("validation")


def test_without_validation_images_no_rule_is_selected() -> None:
    spec = evaluation({"empty": "auto", "smallest_area": "auto", "largest_component": True})
    scores, _ = score(Grey(), spec, {"test": range(6), "validation": ()})  # type: ignore[arg-type]
    record = json.loads(scores.schema.metadata[schema.EVALUATION])
    assert record["postprocess"]["tumour"] == {"empty": None, "smallest_area": 0, "largest_component": True}


def test_unlabelled_pixels_belong_to_components_and_are_not_counted() -> None:
    truth = images_and_truth()[1]
    truth[:, :, : SIZE // 2] = IGNORE
    rows, _, _ = score_masks(evaluation({"smallest_area": 5}, exclusive=True, truth=truth))
    images = images_and_truth()[0]
    for row in rows:
        if row["split"] == "test_postprocessed" and row["class"] == "tumour":
            mask = without_small(images[int(row["image"])] >= 128, 5)
            assert row["tp"] + row["fp"] == mask[:, SIZE // 2 :].sum()


def test_an_image_in_bands_has_the_scores_of_one_processed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = images_and_truth()
    pixels, truth = np.tile(images[1], (6, 6)), np.tile(masks[1], (6, 6))[None]
    spec = replace(
        evaluation({"smallest_area": 5, "empty": {"top": 0.6, "area": 3, "bottom": 0.4}}),
        index=replace(evaluation({}).index, heights=[192] * IMAGES, widths=[192] * IMAGES),
        images=NativeImages(
            images=RaggedArray(np.tile(pixels.ravel(), 2), [(192, 192, 1)] * 2), masks=None, foreground=None
        ),
        truth=TrueMasks(lambda _: truth), image=ImageSettings(size=64, fit="patch"), size=NATIVE,
    )  # fmt: skip
    splits = {"test": [0], "validation": [1]}
    expected = [table.to_pylist() for table in score(Grey(), spec, splits)]  # type: ignore[arg-type]
    monkeypatch.setattr(masks_module, "is_large", lambda *_: True)
    banded = [table.to_pylist() for table in score(Grey(), replace(spec, limit=2**12), splits)]  # type: ignore[arg-type]
    exact = ("tp", "fp", "fn", "tn", "positives", "negatives", "hd95", "assd", "nsd", "lesion_tp", "lesion_fp")
    for before, after in zip(expected[0], banded[0], strict=True):
        assert {name: before[name] for name in exact} == {name: after[name] for name in exact}


def test_the_empty_mask_rule_is_selected_on_all_pixels_including_unlabelled_ones() -> None:
    truth = images_and_truth()[1]
    truth[:, :, : SIZE // 2] = IGNORE
    rows, _, record = score_masks(evaluation({"empty": "auto"}, exclusive=True, truth=truth))
    rule = record["postprocess"]["tumour"]["empty"]
    assert rule is not None
    images = images_and_truth()[0] / 255
    for row in rows:
        if row["split"].endswith("_postprocessed") and row["class"] == "tumour":
            scores = images[int(row["image"])]
            is_kept = (scores >= rule["top"]).sum() >= rule["area"]
            expected = (scores >= rule["bottom"])[:, SIZE // 2 :].sum() if is_kept else 0
            assert row["tp"] + row["fp"] == expected

    def mean(split: str) -> float:
        chosen = [row for row in rows if (row["split"], row["class"]) == (split, "tumour")]
        dice = [2 * row["tp"] / total if (total := 2 * row["tp"] + row["fp"] + row["fn"]) else 1.0 for row in chosen]
        return float(np.mean(dice))

    assert mean("validation_postprocessed") >= mean("validation")
