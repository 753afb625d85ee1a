from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error
from torchmetrics.functional.segmentation import dice_score, mean_iou

from models.score_bins import SCORE_BINS, THRESHOLD_STEPS
from results import schema
from results.metrics.compute import MetricSettings, collect, replicate_rows
from results.metrics.thresholds import coarse_scores, coarsened
from tests.support.replicates import NAMES, Stored, replicate, stage, truth_and_scores

DEFAULTS = MetricSettings()
Values = dict[tuple[str, str, str], float | None]


def values(truth: NDArray[np.bool_], scores: NDArray[np.float64], settings: MetricSettings = DEFAULTS) -> Values:
    rows = replicate_rows(*stage(truth, scores), settings)
    return {(row.aggregation, row.class_, row.metric): row.value for row in rows}


def one_hot(masks: NDArray[np.bool_]) -> torch.Tensor:
    return torch.tensor(masks.reshape(-1, *masks.shape[-2:])).int()


def test_dataset_rows_equal_torchmetrics_on_the_pixels_of_all_images() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    pooled_truth, pooled = (np.moveaxis(x, 1, 0).reshape(4, -1) for x in (truth, scores))
    arguments = {"num_classes": 4, "per_class": True, "input_format": "one-hot"}
    iou = mean_iou(one_hot(pooled >= 0.5), one_hot(pooled_truth), **arguments)[0]
    dice = dice_score(
        one_hot(pooled >= 0.5), one_hot(pooled_truth), num_classes=4, average="none", input_format="one-hot"
    )[0]
    for index, name in enumerate(NAMES[:3]):
        assert actual["dataset", name, "mean_iou"] == pytest.approx(float(iou[index]))
        assert actual["dataset", name, "dice"] == pytest.approx(float(dice[index]))
        auc = binary_auroc(torch.tensor(pooled[index]), torch.tensor(pooled_truth[index]).int())
        assert actual["dataset", name, "auc"] == pytest.approx(float(auc), abs=1e-6)
    assert actual["dataset", "macro", "mean_iou"] == pytest.approx(float(iou[:3].mean()))
    assert actual["dataset", "macro", "dice"] == pytest.approx(float(dice[:3].mean()))


def test_case_rows_equal_torchmetrics_for_each_image() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    iou = mean_iou(
        one_hot(scores >= 0.5), one_hot(truth), num_classes=4, per_class=True, input_format="one-hot"
    ).numpy()
    present = truth.any(-1)
    assert actual["case", "left", "mean_iou"] == pytest.approx(iou[:, 0].mean())
    assert actual["case", "effusion", "mean_iou"] == pytest.approx(iou[0, 2])
    of_images = [iou[image][present[image]].mean() for image in range(len(truth))]
    assert actual["case", "macro", "mean_iou"] == pytest.approx(np.mean(of_images))


def by_monai(
    compute: Callable[..., torch.Tensor], scores: NDArray[np.float64], truth: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """A metric of each image and class, NaN where the truth has no pixel of the class."""
    return compute(torch.tensor(scores >= 0.5).float(), torch.tensor(truth).float()).numpy()


def test_rows_equal_monai_and_are_null_where_monai_has_nan() -> None:
    from monai.metrics import compute_dice, compute_iou

    truth, scores = truth_and_scores()
    actual, cases = values(truth, scores), np.moveaxis(truth, 1, 0).reshape(1, 4, -1)
    pooled = np.moveaxis(scores, 1, 0).reshape(1, 4, -1)
    for metric, compute in (("dice", compute_dice), ("mean_iou", compute_iou)):
        together, separate = by_monai(compute, pooled, cases)[0], by_monai(compute, scores, truth)
        assert np.isnan(together[3])
        assert np.isnan(separate[1:, 2:]).all()
        for index, name in enumerate(NAMES[:3]):
            assert actual["dataset", name, metric] == pytest.approx(float(together[index]))
            assert actual["case", name, metric] == pytest.approx(float(np.nanmean(separate[:, index])))
        assert (actual["dataset", "absent", metric], actual["case", "absent", metric]) == (None, None)
        assert actual["dataset", "macro", metric] == pytest.approx(float(np.nanmean(together)))
        assert actual["case", "macro", metric] == pytest.approx(float(np.nanmean(separate, axis=1).mean()))


def test_dice_with_empty_masks_is_the_mean_of_monai_over_all_images() -> None:
    from monai.metrics import DiceMetric

    truth, scores = truth_and_scores()
    scores[1:4, 2] = 0.0025  # images without effusion: three without a false positive, the others with some
    actual = {row[:4]: row for row in replicate_rows(*stage(truth, scores), DEFAULTS)}
    per_image = DiceMetric(ignore_empty=False)(torch.tensor(scores >= 0.5).float(), torch.tensor(truth).float()).numpy()
    empty = per_image[~truth.any(-1)]
    assert {0.0, 1.0} == set(empty.tolist())
    for index, name in enumerate(NAMES):
        row = actual["test", "case", name, "dice_empty_is_one"]
        assert (row.value, row.images) == (pytest.approx(per_image[:, index].mean()), len(truth))
    assert actual["test", "case", "macro", "dice_empty_is_one"].value == pytest.approx(per_image.mean())
    assert {row.aggregation for row in actual.values() if row.metric == "dice_empty_is_one"} == {"case"}


def test_false_positives_on_images_without_the_class_lower_only_dice_with_empty_masks() -> None:
    truth, scores = truth_and_scores()
    scores[:, 3] = 0.0025
    worse = scores.copy()
    worse[0, 3, 0] = 0.9975
    keys = [("case", "macro", metric) for metric in ("dice_empty_is_one", "dice")]
    before, after = values(truth, scores), values(truth, worse)
    assert before[keys[0]] == pytest.approx(after[keys[0]] + 1 / truth.shape[0] / truth.shape[1])
    assert before[keys[1]] == after[keys[1]]


def test_a_class_absent_from_the_truth_is_null_and_its_false_positives_are_counted() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    assert actual["dataset", "absent", "mean_iou"] is None
    assert actual["case", "absent", "dice"] is None
    assert actual["dataset", "absent", "false_positive_pixels"] == (scores[:, 3] >= 0.5).sum()
    assert ("dataset", "left", "false_positive_pixels") not in actual


def test_false_positives_of_an_absent_class_do_not_change_the_mean() -> None:
    truth, scores = truth_and_scores()
    worse = scores.copy()
    worse[:, 3] = 0.9975
    for aggregation in ("dataset", "case"):
        key = (aggregation, "macro", "mean_iou")
        assert values(truth, scores)[key] == values(truth, worse)[key]


def test_min_images_excludes_rare_classes_from_the_mean_but_keeps_their_rows() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores, MetricSettings(min_images=2))
    both = [actual["dataset", name, "dice"] for name in ("left", "right")]
    assert actual["dataset", "macro", "dice"] == pytest.approx(np.mean(both))
    assert actual["dataset", "effusion", "dice"] is not None


def test_weighted_means_use_the_true_pixels_of_classes_as_weights() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    weights = truth.sum(axis=(0, 2))[:3]
    per_class = [actual["dataset", name, "recall"] for name in NAMES[:3]]
    assert actual["dataset", "weighted", "recall"] == pytest.approx(np.average(per_class, weights=weights))


def test_macro_precision_is_null_if_a_present_class_is_never_predicted() -> None:
    truth, scores = truth_and_scores()
    scores[:, 2] = 0.0025
    actual = values(truth, scores)
    assert actual["dataset", "macro", "precision"] is None
    assert actual["dataset", "macro", "f1"] is not None


def test_confidence_and_calibration_are_computed_over_all_pixels() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    sure = np.maximum(scores, 1 - scores).ravel()
    correct = (truth == (scores >= 0.5)).ravel()
    expected = binary_calibration_error(torch.tensor(sure), torch.tensor(correct).int(), n_bins=20)
    assert actual["dataset", "macro", "confidence"] == pytest.approx(sure.mean())
    assert actual["dataset", "macro", "ece"] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_of_foreground_is_that_of_pixels_in_the_truth_or_the_prediction() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores)
    decided = scores >= 0.5
    sure = np.maximum(scores, 1 - scores)
    by_image = []
    for part in [slice(None), *(slice(image, image + 1) for image in range(len(truth)))]:
        chosen = (truth | decided)[part]
        confidence, correct = torch.tensor(sure[part][chosen]), torch.tensor((truth == decided)[part][chosen]).int()
        by_image.append(float(binary_calibration_error(confidence, correct, n_bins=20)))
    assert actual["dataset", "macro", "ece_foreground"] == pytest.approx(by_image[0], abs=1e-6)
    assert actual["case", "macro", "ece_foreground"] == pytest.approx(np.mean(by_image[1:]), abs=1e-6)


def test_a_lesion_never_predicted_is_well_calibrated_over_all_pixels_but_not_over_the_foreground() -> None:
    truth = np.zeros((2, 1, 600), dtype=np.bool_)
    truth[:, :, :6] = True
    rows = replicate_rows(*stage(truth, np.full(truth.shape, 0.0075), names=["lesion"]), DEFAULTS)
    for aggregation in ("dataset", "case"):
        actual = {row.metric: row.value for row in rows if (row.aggregation, row.class_) == (aggregation, "macro")}
        assert actual["ece"] == pytest.approx(0.0025)
        assert actual["ece_foreground"] == pytest.approx(0.9925)


def test_without_foreground_in_truth_and_prediction_its_calibration_is_undefined() -> None:
    actual = values(np.zeros((2, 4, 50), dtype=np.bool_), np.full((2, 4, 50), 0.0075))
    assert actual["dataset", "macro", "ece"] is not None
    assert actual["dataset", "macro", "ece_foreground"] is actual["case", "macro", "ece_foreground"] is None


def earlier(scores: pa.Table, images: pa.Table) -> Stored:
    """Tables as an earlier version stored them: 200 equal score bins, no sums of scores, no foreground bins."""
    for name in ("positives", "negatives"):
        bins = coarsened(np.array(scores[name].to_pylist()))
        place = scores.schema.get_field_index(name)
        scores = scores.set_column(place, scores.schema.field(place), pa.array(bins.tolist(), pa.list_(pa.int32())))
    scores = scores.drop_columns(["score_sums"])
    return scores, images.drop_columns([f"foreground_{part}" for part in ("count", "sum", "correct")])


@pytest.mark.parametrize("background", [False, True])
def test_tables_of_earlier_versions_are_measured_without_calibration_of_foreground(background: bool) -> None:
    stored = stage(*truth_and_scores())
    old = earlier(*stored)
    assert {len(row) for row in old[0]["positives"].to_pylist()} == {THRESHOLD_STEPS} != {SCORE_BINS}
    assert (coarse_scores(stored[0]), coarse_scores(old[0])) == (False, True)
    settings = MetricSettings(background=background)
    rows = {row[:4]: row.value for row in replicate_rows(*stored, settings)}
    assert {key[3] for key in rows} - {row.metric for row in replicate_rows(*old, settings)} == {"classwise_ece"}
    for row in replicate_rows(*old, settings):
        assert row.value == (None if row.metric == "ece_foreground" else pytest.approx(rows[row[:4]]))


def test_an_image_without_foreground_bins_does_not_affect_the_others() -> None:
    scores, images = stage(*truth_and_scores())
    place = images.schema.get_field_index("foreground_count")
    counts = [None, *images["foreground_count"].to_pylist()[1:]]
    lacking = images.set_column(place, images.schema.field(place), pa.array(counts, pa.list_(pa.int64())))
    actual = {row[:4]: row for row in replicate_rows(scores, lacking, DEFAULTS)}
    assert actual["test", "dataset", "macro", "ece_foreground"].value is None
    assert actual["test", "case", "macro", "ece_foreground"].images == len(images) - 1


def test_only_selected_classes_are_scored() -> None:
    truth, scores = truth_and_scores()
    actual = values(truth, scores, MetricSettings(classes=("right", "left")))
    assert {name for _, name, _ in actual} == {"left", "right", "macro", "weighted"}


def test_the_background_is_scored_only_if_configured() -> None:
    names = ("background", "left", "right", "absent")
    stored = stage(*truth_and_scores(), names=names)
    plain = replicate_rows(*stored, DEFAULTS)
    with_background = replicate_rows(*stored, MetricSettings(background=True))
    assert "background" not in {row.class_ for row in plain}
    assert "background" in {row.class_ for row in with_background}


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    stored = stage(*truth_and_scores())
    with pytest.raises(ValueError, match="names lung; allowed: left, right, effusion, absent; name"):
        replicate_rows(*stored, MetricSettings(classes=("lung",)))


def test_splits_are_scored_separately() -> None:
    truth, scores = truth_and_scores()
    tables = [
        stage(truth[part], scores[part], splits=(split,))
        for part, split in ((slice(0, 2), "test"), (slice(2, 5), "validation"))
    ]
    together = [pa.concat_tables(both) for both in zip(*tables, strict=True)]
    actual = replicate_rows(*together, DEFAULTS)
    separate = [row for pair in tables for row in replicate_rows(*pair, DEFAULTS)]
    assert actual == separate
    assert {row.images for row in actual if row.aggregation == "dataset"} == {2, 3}


def test_collect_writes_the_documented_results_table() -> None:
    stored = stage(*truth_and_scores())
    table = collect("s", [replicate(0, {"segment.loss": "dice"})], lambda _: stored, DEFAULTS, further=["segment.loss"])
    assert table.schema == schema.results(["segment.loss"])
    expected = [row.value for row in replicate_rows(*stored, DEFAULTS)]
    assert table["value"].to_pylist() == expected
    assert set(table["digest"].to_pylist()) == {"d0"}


def test_without_replicates_the_table_is_empty() -> None:
    table = collect("s", [], lambda _: pytest.fail("nothing to load"), DEFAULTS, further=["segment.loss"])
    assert table.num_rows == 0
    assert table.schema == schema.results(["segment.loss"])


def test_a_digest_shared_by_replicates_is_read_once() -> None:
    read: list[str] = []
    stored = stage(*truth_and_scores())
    twins = [replicate(0), replicate(0)]
    table = collect("s", twins, lambda replicate: read.append(replicate.digest) or stored, DEFAULTS)
    assert read == ["d0"]
    assert table.num_rows == 2 * len(replicate_rows(*stored, DEFAULTS))
