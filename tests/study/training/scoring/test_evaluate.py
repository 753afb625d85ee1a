"""Scores at a class threshold, and the tables of scores."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from sklearn.metrics import roc_auc_score

from datasets.loading.prepare import Prepared
from datasets.loading.truth import TrueMasks
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Index
from models.architectures.parts import Blueprint
from models.build import build
from models.network import Network
from models.score_bins import SCORE_BINS, SCORE_EDGES, first_bins
from models.settings import SegmentationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results.metrics.compute import MetricSettings, replicate_rows
from results.metrics.surface import ShapeSettings, shape_values
from study.config.evaluation import ClassThreshold
from study.training.scoring.batches import EvaluationSpec, predictions
from study.training.scoring.evaluate import score

SIZE, IMAGES = 32, 6
NAMES = ("soft tissue", "bone")
SPLITS: dict[str, Any] = {"test": range(3), "validation": range(3, IMAGES)}
RATE = 0.1


def evaluation(
    task: Segmentation,
    class_threshold: ClassThreshold | None,
    threshold: float = 0.5,
    ignored: float = 0.0,
    *,
    shape: ShapeSettings | None = None,
    enlarged: int = 1,
) -> EvaluationSpec:
    random = np.random.default_rng(0)
    ids = [str(number) for number in range(IMAGES)]
    empty = [""] * IMAGES
    index = Index(
        ids=ids, patients=ids, categories=empty, official=empty, content=ids, thumbnails=empty, faults=empty,
        annotation_digests={"masks": ids}, classes=NAMES, overlapping=not task.outputs.exclusive, labels=(),
        heights=[enlarged * SIZE] * IMAGES, widths=[SIZE] * IMAGES,
    )  # fmt: skip
    images = random.integers(0, 256, (IMAGES, SIZE, SIZE, 1), dtype=np.uint8)
    shapes = np.full((IMAGES, 2), SIZE, np.int32)
    truth = random.integers(0, 3, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    if not task.outputs.exclusive:
        truth = np.stack([truth == 1, truth == 2], axis=1).astype(np.uint8)
    truth[random.random(truth.shape) < ignored] = IGNORE
    return EvaluationSpec(
        task=task, index=index, images=Prepared(images=images, targets=None, shapes=shapes),
        truth=TrueMasks(truth.__getitem__), image=ImageSettings(size=SIZE), size=SIZE, threshold=threshold,
        class_threshold=class_threshold, shape=shape,
    )  # fmt: skip


def both_tables(
    class_threshold: ClassThreshold | None = None,
    *,
    exclusive: bool = True,
    threshold: float = 0.5,
    ignored: float = 0.0,
    shape: ShapeSettings | None = None,
    enlarged: int = 1,
) -> tuple[pa.Table, pa.Table]:
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=exclusive))
    assert isinstance(task, Segmentation)
    torch.manual_seed(0)
    network = build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=2 + exclusive))
    spec = evaluation(task, class_threshold, threshold, ignored, shape=shape, enlarged=enlarged)
    return score(network, spec, SPLITS)


def score_images(class_threshold: ClassThreshold | None, ignored: float = 0.0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = both_tables(class_threshold, ignored=ignored)[0].to_pylist()
    return rows


def total(rows: list[dict[str, Any]], split: str, count: str, name: str = NAMES[0]) -> int:
    return sum(row[count] for row in rows if (row["split"], row["class"]) == (split, name))


HELD = ClassThreshold.model_validate({"class": NAMES[0], "false_positive_rate": RATE})


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return score_images(HELD)


def test_without_a_class_threshold_there_are_no_additional_splits() -> None:
    assert {row["split"] for row in score_images(None)} == {"test", "validation"}


def test_a_class_threshold_adds_splits_and_does_not_change_the_others(rows: list[dict[str, Any]]) -> None:
    before = [row for row in rows if not row["split"].endswith("_thresholded")]

    assert before == score_images(None)
    assert {row["split"] for row in rows} == {f"{split}{end}" for split in SPLITS for end in ("", "_thresholded")}


@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_the_threshold_is_the_lowest_with_the_rate_on_validation_images(ignored: float) -> None:
    rows = score_images(HELD, ignored)
    (threshold,) = {row["threshold"] for row in rows if row["threshold"] is not None}
    negatives = total(rows, "validation", "fp") + total(rows, "validation", "tn")

    assert total(rows, "validation", "fp") > RATE * negatives
    assert total(rows, "validation_thresholded", "fp") <= RATE * negatives
    step = round(threshold * 200)
    below = slice(*first_bins(SCORE_BINS)[step - 1 : step + 1])
    called = [sum(row["negatives"][below]) for row in rows if row["split"] == "validation" and row["class"] == NAMES[0]]
    assert total(rows, "validation_thresholded", "fp") + sum(called) > RATE * negatives


def test_foreground_bins_of_exclusive_classes_exclude_pixels_predicted_as_background_correctly() -> None:
    scores, rows = (table.to_pylist() for table in both_tables(HELD))
    assert {row["split"] for row in rows} >= {"test", "test_thresholded"}
    for row in rows:
        classes = [
            other_row
            for other_row in scores
            if (other_row["image"], other_row["split"]) == (row["image"], row["split"])
        ]
        assert [other_row["tp"] for other_row in classes] == [row["confusion"][place] for place in (4, 8, 0)]
        assert sum(row["foreground_count"]) == sum(row["confusion"]) - row["confusion"][0] < SIZE * SIZE
        assert sum(row["confidence_count"]) == SIZE * SIZE
        assert all(
            part <= total_sum for part, total_sum in zip(row["foreground_sum"], row["confidence_sum"], strict=True)
        )
    counts = {split: sum(sum(row["foreground_count"]) for row in rows if row["split"] == split) for split in SPLITS}
    assert all(counts.values())


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_foreground_bins_of_overlapping_classes_have_the_pairs_at_the_threshold(threshold: float) -> None:
    scores, images = (table.to_pylist() for table in both_tables(exclusive=False, threshold=threshold))
    for row in images:
        place = (row["image"], row["split"])
        parts = [score_row for score_row in scores if (score_row["image"], score_row["split"]) == place]
        assert sum(row["foreground_count"]) == sum(
            score_row["tp"] + score_row["fp"] + score_row["fn"] for score_row in parts
        )
        assert sum(row["confidence_count"]) == 2 * SIZE * SIZE


SHAPE = ShapeSettings(tolerance=1.0, lesion_iou=0.1)


@pytest.mark.parametrize("exclusive", [True, False])
def test_metrics_of_shapes_are_those_of_the_predicted_masks(exclusive: bool) -> None:
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=exclusive))
    assert isinstance(task, Segmentation)
    torch.manual_seed(0)
    network = build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=2 + exclusive)).eval()
    spec = evaluation(task, None, ignored=0.1 if exclusive else 0.0, shape=SHAPE, enlarged=2)
    rows = score(network, spec, SPLITS)[0].to_pylist()
    (batch,) = predictions(network, spec, range(IMAGES))
    known = batch.known()
    labelled = torch.ones_like(batch.masks()) if known is None else known
    for row in rows:
        place = int(row["image"]), NAMES.index(row["class"]) if row["class"] in NAMES else None
        if place[1] is None:
            assert row["lesion_tp"] is None
            continue
        masks = [(part.bool() & labelled)[place].numpy() for part in (batch.masks(), batch.predicted())]
        expected = shape_values(masks[0], masks[1], SHAPE, spacing=(2.0, 1.0))
        assert tuple(row[name] for name in expected._fields) == pytest.approx(tuple(expected))


def spec_of(volumes: list[str], spacings: list[tuple[float, ...]]) -> tuple[Network, EvaluationSpec]:
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=True))
    assert isinstance(task, Segmentation)
    torch.manual_seed(0)
    network = build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=3)).eval()
    spec = evaluation(task, None, ignored=0.1, shape=SHAPE, enlarged=2)
    return network, replace(spec, index=replace(spec.index, volumes=volumes, spacings=spacings))


def test_shapes_of_a_volume_are_measured_in_three_dimensions_on_the_row_of_its_first_slice() -> None:
    volumes = ["a", "a", "b", *["c"] * (IMAGES - 3)]
    network, spec = spec_of(volumes, [(3.0, 0.5, 0.7)] * IMAGES)
    scores, images = score(network, spec, SPLITS)
    assert images["volume"].to_pylist() == volumes
    (batch,) = predictions(network, spec, range(IMAGES))
    known = batch.known()
    assert known is not None
    for row in scores.to_pylist():
        number = int(row["image"])
        is_first = number == volumes.index(volumes[number])
        if row["class"] not in NAMES or not is_first:
            assert row["lesion_tp"] is None
            continue
        slices = [other for other, volume in enumerate(volumes) if volume == volumes[number]]
        masks = [
            (part.bool() & known)[slices, NAMES.index(row["class"])].numpy()
            for part in (batch.masks(), batch.predicted())
        ]
        if len(slices) == 1:
            expected = shape_values(masks[0][0], masks[1][0], SHAPE, spacing=(1.0, 0.7))
        else:
            expected = shape_values(masks[0], masks[1], SHAPE, spacing=(3.0, 1.0, 0.7))
        assert tuple(row[name] for name in expected._fields) == pytest.approx(tuple(expected))


def test_distances_are_in_mm_if_the_spacing_of_all_images_is_known() -> None:
    spacings: list[tuple[float, ...]] = [(0.25, 0.5)] * IMAGES
    network, spec = spec_of([""] * IMAGES, spacings)
    assert spec.spacing_of(0) == (0.5, 0.5)  # an evaluated pixel is as high as two pixels of the image
    assert replace(spec, index=replace(spec.index, spacings=[*spacings[1:], ()])).spacing_of(0) == (2.0, 1.0)
    assert replace(spec, index=replace(spec.index, volumes=["a"] * IMAGES, spacings=())).spacing_of(0) == (1, 2, 1)
    distances = score(network, spec, SPLITS)[0]["hd95"].to_pylist()
    in_pixels = score(network, replace(spec, index=replace(spec.index, spacings=())), SPLITS)[0]["hd95"].to_pylist()
    assert distances != in_pixels


def test_metrics_of_shapes_are_averaged_over_the_images_that_contain_the_class() -> None:
    tables = both_tables(exclusive=False, shape=SHAPE)
    rows = {row[:4]: row for row in replicate_rows(*tables, MetricSettings())}
    stored = [row for row in tables[0].to_pylist() if row["split"] == "test"]
    for metric in ("hd95", "assd", "nsd", "cl_dice"):
        by_class = {name: [row[metric] for row in stored if row["class"] == name] for name in NAMES}
        for name, values in by_class.items():
            assert rows["test", "case", name, metric].value == pytest.approx(np.mean(values))
        assert rows["test", "case", "macro", metric].value == pytest.approx(np.mean([*by_class.values()]))
        assert ("test", "dataset", "macro", metric) not in rows
    first = [row for row in stored if row["class"] == NAMES[0]]
    recalls = [row["lesion_tp"] / (row["lesion_tp"] + row["lesion_fn"]) for row in first]
    assert rows["test", "case", NAMES[0], "lesion_recall"].value == pytest.approx(np.mean(recalls))
    assert not any(row[3] == "hd95" for row in replicate_rows(*both_tables(exclusive=False), MetricSettings()))


def test_test_pixels_below_the_class_threshold_are_assigned_to_other_classes(rows: list[dict[str, Any]]) -> None:
    gained = total(rows, "test_thresholded", "fp", "bone") + total(rows, "test_thresholded", "tp", "bone")

    assert total(rows, "test_thresholded", "fp") < total(rows, "test", "fp")
    assert gained >= total(rows, "test", "fp", "bone") + total(rows, "test", "tp", "bone")


def test_only_rows_of_the_class_have_the_threshold(rows: list[dict[str, Any]]) -> None:
    with_threshold = {(row["class"], row["split"]) for row in rows if row["threshold"] is not None}

    assert with_threshold == {(NAMES[0], "test_thresholded"), (NAMES[0], "validation_thresholded")}


@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_auc_and_calibration_with_the_background_are_those_of_all_classes(ignored: float) -> None:
    """One class against the rest: area under the ROC curve by scikit-learn, calibration error by its formula."""
    task = make_task(SegmentationSettings(loss={"dice": 1.0}), Outputs(names=NAMES, exclusive=True))
    assert isinstance(task, Segmentation)
    torch.manual_seed(0)
    network = build(Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=3))
    spec = evaluation(task, None, ignored=ignored)
    rows = replicate_rows(*score(network, spec, SPLITS), MetricSettings(background=True))
    values = {row.class_: row.value for row in rows if row[:2] == ("test", "dataset") and row.metric == "auc"}
    errors = {row.class_: row.value for row in rows if row[:2] == ("test", "dataset") and row.metric == "classwise_ece"}
    (prediction,) = predictions(network, spec, SPLITS["test"])
    probabilities = prediction.probabilities.detach().transpose(0, 1).flatten(1).numpy()
    truth = prediction.truth.flatten().numpy()
    known = truth != IGNORE
    pixels, areas, calibration = [], [], []
    for channel, name in enumerate(("background", *NAMES)):
        scores, positive = probabilities[channel, known], truth[known] == channel
        pixels.append(positive.sum())
        areas.append(roc_auc_score(positive, np.digitize(scores, np.float32(SCORE_EDGES))))  # scores of a bin are ties
        bins = np.digitize(scores, np.float32(np.arange(1, 20) / 20))
        gaps = [abs((positive[bins == place] - scores[bins == place].astype(np.float64)).sum()) for place in range(20)]
        calibration.append(sum(gaps) / known.sum())
        assert values[name] == pytest.approx(areas[-1], abs=1e-9)
        assert errors[name] == pytest.approx(calibration[-1], abs=1e-6)
    assert values["weighted"] == pytest.approx(np.average(areas, weights=pixels), abs=1e-9)
    assert values["macro"] == pytest.approx(np.mean(areas), abs=1e-9)
    assert errors["macro"] == pytest.approx(np.mean(calibration), abs=1e-6)


def test_scores_of_earlier_versions_have_no_auc_of_the_background() -> None:
    scores, images = both_tables()
    old = scores.filter(pc.not_equal(scores["class"], "background")).drop_columns(["score_sums"])
    new, before = (replicate_rows(table, images, MetricSettings(background=True)) for table in (scores, old))
    names = {"background", "macro", "weighted"}
    undefined = [row for row in before if row.metric == "auc" and row.class_ in names]
    assert undefined
    assert all(row.value is None for row in undefined)
    assert not [row for row in before if row.metric == "classwise_ece"]
    same = [row for row in before if row not in undefined]
    assert same == [row for row in new if row.metric != "classwise_ece" and row[:4] in {other[:4] for other in same}]


def test_without_background_its_stored_scores_change_no_metric() -> None:
    scores, images = both_tables()
    old = scores.filter(pc.not_equal(scores["class"], "background"))
    assert replicate_rows(scores, images, MetricSettings()) == replicate_rows(old, images, MetricSettings())


def test_a_volume_of_one_slice_is_measured_as_an_image() -> None:
    network, spec = spec_of([""] * IMAGES, [(0.5, 0.7)] * IMAGES)
    single = spec_of([str(number) for number in range(IMAGES)], [(3.0, 0.5, 0.7)] * IMAGES)[1]
    names = ("hd95", "assd", "nsd", "cl_dice", "lesion_tp", "lesion_fp", "lesion_fn")
    images, volumes = (score(network, settings, SPLITS)[0].select(names).to_pylist() for settings in (spec, single))
    for image, volume in zip(images, volumes, strict=True):
        assert image == pytest.approx(volume, nan_ok=True)
