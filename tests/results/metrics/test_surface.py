"""Metrics of contours, centre lines and lesions compared with MONAI, a search over all segments and manual values."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from datasets.large import LARGE_PIXELS
from results.metrics.contours import Contour, Mask, Spacing, contour, on_fewer_pixels
from results.metrics.formulas import FloatArray
from results.metrics.lesions import Overlap
from results.metrics.surface import ShapeSettings, boundary_distances, shape_values


def empty(height: int = 40, width: int = 60) -> Mask:
    return np.zeros((height, width), dtype=bool)


def box(top: int, left: int, height: int, width: int) -> Mask:
    mask = empty()
    mask[top : top + height, left : left + width] = True
    return mask


def disc(row: float, column: float, radius: float, side: int = 300) -> Mask:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def blobs(seed: int, side: int = 96, smoothing: float = 4.0) -> Mask:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), smoothing)
    return np.asarray(noise > np.quantile(noise, 0.7))


def nearest_of_all(points: FloatArray, other: Contour) -> FloatArray:
    """Return the distance of each point to a contour by computing it for every segment."""
    sides = other.ends - other.starts
    offsets = points[:, None] - other.starts
    along = np.clip((offsets * sides).sum(axis=2) / (sides**2).sum(axis=1), 0, 1)
    return np.asarray(np.linalg.norm(offsets - along[..., None] * sides, axis=2).min(axis=1))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_are_to_the_nearest_point_of_the_other_contour(seed: int, spacing: Spacing) -> None:
    truth, predicted = blobs(seed), blobs(seed + 100)
    distances = boundary_distances(truth, predicted, spacing)
    expected = nearest_of_all(contour(truth, spacing).midpoints, contour(predicted, spacing))
    np.testing.assert_allclose(distances.of_truth, expected, atol=1e-9)


def test_contour_of_a_pixel_is_a_diamond_and_of_a_box_has_bevelled_corners() -> None:
    assert contour(box(5, 5, 1, 1)).sizes.sum() == pytest.approx(4 * math.sqrt(0.5))
    assert contour(box(5, 5, 10, 20)).sizes.sum() == pytest.approx(2 * (9 + 19) + 4 * math.sqrt(0.5))
    assert contour(box(0, 0, 40, 60)).sizes.sum() == pytest.approx(2 * (39 + 59) + 4 * math.sqrt(0.5))
    assert contour(box(5, 5, 10, 20), (2.0, 0.5)).sizes.sum() == pytest.approx(
        2 * (9 * 2 + 19 * 0.5) + 4 * math.hypot(1, 0.25)
    )


def test_the_distance_of_a_shifted_box_is_the_shift() -> None:
    truth, predicted = box(10, 10, 15, 20), box(10, 13, 15, 20)
    assert boundary_distances(truth, predicted).percentile(1.0) == pytest.approx(3.0)
    assert boundary_distances(truth, predicted, (1.0, 0.4)).percentile(1.0) == pytest.approx(1.2)


def test_the_distance_of_concentric_discs_is_the_difference_of_their_radii() -> None:
    values = shape_values(disc(150, 150, 100), disc(150, 150, 110), ShapeSettings(tolerance=11.0, lesion_iou=0.1))
    assert values.hd95 == pytest.approx(10.0, abs=0.5)
    assert values.assd == pytest.approx(10.0, abs=0.5)
    assert values.nsd == 1.0
    assert (
        shape_values(disc(150, 150, 100), disc(150, 150, 110), ShapeSettings(tolerance=9.0, lesion_iou=0.1)).nsd == 0.0
    )


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_surface_metrics_agree_with_monai_within_a_pixel(seed: int) -> None:
    """MONAI measures between boundary pixels, each with the same weight."""
    random = np.random.default_rng(seed)
    row, column, radius = random.uniform((130, 130, 40), (170, 170, 90))
    truth, predicted = disc(150, 150, 80), disc(row, column, radius)
    prediction, target = (
        torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (predicted, truth)
    )  # fmt: skip
    values = shape_values(truth, predicted, ShapeSettings(tolerance=5.0, lesion_iou=0.1))
    assert values.hd95 == pytest.approx(float(compute_hausdorff_distance(prediction, target, percentile=95)), abs=1.0)
    assert values.assd == pytest.approx(
        float(compute_average_surface_distance(prediction, target, symmetric=True)), abs=0.5
    )  # fmt: skip
    assert values.nsd == pytest.approx(float(compute_surface_dice(prediction, target, [5.0])), abs=0.06)


def test_distances_scale_with_the_spacing() -> None:
    truth, predicted = blobs(1), blobs(2)
    pixels = shape_values(truth, predicted, ShapeSettings(tolerance=2.0, lesion_iou=0.1))
    millimetres = shape_values(truth, predicted, ShapeSettings(tolerance=0.5, lesion_iou=0.1), spacing=(0.25, 0.25))
    assert millimetres.hd95 == pytest.approx(pixels.hd95 / 4)
    assert millimetres.assd == pytest.approx(pixels.assd / 4)
    assert millimetres.nsd == pytest.approx(pixels.nsd)


def test_equal_masks_are_perfect() -> None:
    mask = blobs(3)
    values = shape_values(mask, mask, ShapeSettings(tolerance=0.0, lesion_iou=1.0))
    assert values[:4] == (0.0, 0.0, 1.0, 1.0)
    assert (values.lesion_fp, values.lesion_fn) == (0, 0)


def test_class_absent_from_the_truth_is_undefined_and_its_lesions_are_false_positives() -> None:
    values = shape_values(empty(), box(3, 3, 4, 4), ShapeSettings(tolerance=1.0, lesion_iou=0.1))
    assert all(map(math.isnan, values[:4]))
    assert values[4:] == (0, 1, 0)
    assert all(map(math.isnan, shape_values(empty(), empty(), ShapeSettings(tolerance=1.0, lesion_iou=0.1))[:4]))


def test_class_never_predicted_has_the_worst_values() -> None:
    values = shape_values(box(3, 3, 4, 4), empty(), ShapeSettings(tolerance=1.0, lesion_iou=0.1), spacing=(0.5, 2.0))
    assert values[:2] == (math.hypot(20, 120),) * 2
    assert values[2:] == (0.0, 0.0, 0, 0, 1)


def test_metrics_do_not_depend_on_the_border_around_the_foreground() -> None:
    truth, predicted = blobs(5), blobs(6)
    padded = [np.pad(mask, ((7, 20), (3, 11))) for mask in (truth, predicted)]
    near = shape_values(np.pad(truth, 1), np.pad(predicted, 1), ShapeSettings(tolerance=2.0, lesion_iou=0.1))
    assert shape_values(padded[0], padded[1], ShapeSettings(tolerance=2.0, lesion_iou=0.1)) == pytest.approx(near)


def test_centre_line_dice_of_a_vessel_with_a_gap_and_a_thicker_one() -> None:
    vessel, gap, thick = box(20, 10, 3, 40), box(20, 10, 3, 40), box(18, 10, 7, 40)
    gap[:, 25:35] = False
    assert Overlap.of(vessel, thick).centre_line_dice() == pytest.approx(1.0)
    assert Overlap.of(vessel, gap).centre_line_dice() < 0.9
    assert Overlap.of(vessel, box(30, 10, 3, 40)).centre_line_dice() == 0.0
    assert math.isnan(Overlap.of(empty(), empty()).centre_line_dice())


def test_lesions_are_matched_one_to_one() -> None:
    truth = box(2, 2, 5, 5) | box(20, 2, 5, 5) | box(20, 40, 5, 5)
    both = box(2, 2, 5, 5) | box(20, 30, 6, 6) | box(35, 50, 3, 3)
    assert Overlap.of(truth, both).lesion_counts(min_iou=0.1) == (1, 2, 2)
    one_blob = box(0, 0, 40, 60)
    assert Overlap.of(truth, one_blob).lesion_counts(min_iou=0.01) == (1, 0, 2)
    assert Overlap.of(truth, one_blob).lesion_counts(min_iou=0.1) == (0, 1, 3)


def test_diagonal_neighbours_are_one_lesion() -> None:
    diagonal = box(5, 5, 1, 1) | box(6, 6, 1, 1)
    assert Overlap.of(diagonal, diagonal).lesion_counts(min_iou=1.0) == (1, 0, 0)


def test_the_largest_number_of_lesions_is_matched() -> None:
    """The first true lesion overlaps both predicted ones, the second only the first predicted one."""
    truth = box(10, 0, 2, 20) | box(10, 22, 2, 18)
    predicted = box(10, 0, 1, 10) | box(11, 12, 1, 28)
    assert Overlap.of(truth, predicted).lesion_counts(min_iou=0.05) == (2, 0, 0)


def twice(pattern: Mask, side: int) -> Mask:
    """Return a mask (side, side) with a pattern in two opposite corners."""
    mask = np.zeros((side, side), dtype=bool)
    rows, columns = pattern.shape
    mask[:rows, :columns], mask[-rows:, -columns:] = pattern, pattern
    return mask


def test_masks_of_large_images_have_the_values_of_small_ones() -> None:
    large, small = 8200, 300
    assert large**2 > LARGE_PIXELS
    settings = ShapeSettings(tolerance=1.0, lesion_iou=0.3)
    by_side = [
        shape_values(twice(blobs(0), side), twice(blobs(0) & blobs(1, smoothing=2.0), side), settings)
        for side in (small, large)
    ]
    assert tuple(by_side[1]) == pytest.approx(tuple(by_side[0]), rel=1e-12)
    assert by_side[0].lesion_tp > 0


def test_a_component_across_all_bands_is_one() -> None:
    truth = np.zeros((8200, 8200), dtype=bool)
    truth[:, 100:103] = True
    predicted = truth.copy()
    predicted[4000:4010] = False  # two components
    predicted[np.arange(500), 7000 + np.arange(500)] = True  # a diagonal, connected by corners
    assert Overlap.of(truth, predicted).lesion_counts(min_iou=0.4) == (1, 2, 0)
    parts = [boundary_distances(truth, predicted).truth_sizes.sum(), contour(predicted).sizes.sum()]
    assert parts[0] == pytest.approx(2 * 8200 + 2 * 3, abs=4)
    assert Overlap.of(truth, truth).centre_line_dice() == 1.0


def test_each_large_mask_is_labelled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled: list[int] = []
    label = ndimage.label

    def counted(mask: Mask, *arguments: object) -> object:
        labelled.append(mask.size)
        return label(mask, *arguments)

    monkeypatch.setattr(ndimage, "label", counted)
    truth = np.zeros((8200, 8200), dtype=bool)
    truth[4000:4100, 100:110], truth[8000:, 8000:] = True, True
    predicted = np.roll(truth, 3, axis=0)
    overlap = Overlap.of(truth, predicted)
    assert overlap.lesion_counts(min_iou=0.5) == (2, 1, 0)  # the rolled square is in two parts
    assert overlap.centre_line_dice() > 0.4
    bands = 2 * truth.size
    assert bands <= sum(labelled) < 1.01 * bands  # and the boxes of single components


def test_long_contours_are_measured_at_reduced_resolution() -> None:
    truth, predicted = (np.repeat(np.repeat(blobs(seed), 4, axis=0), 4, axis=1) for seed in (0, 1))
    distances = boundary_distances(truth, predicted)
    assert on_fewer_pixels(truth, predicted)[2] == 1
    *fewer, step = on_fewer_pixels(truth, predicted, limit=len(contour(truth).sizes) // 2)
    assert step in (2, 4)
    reduced = boundary_distances(*fewer, (step, step))
    assert reduced.mean() == pytest.approx(distances.mean(), rel=0.05)
    speck = np.zeros((9, 9), dtype=bool)
    speck[1, 1] = True
    assert on_fewer_pixels(speck, speck, limit=1)[2] == 1  # it would disappear
