"""Surfaces of volume masks compared with distances to all triangles, shapes of known size and MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter

from results.metrics.contours import Mask, Spacing
from results.metrics.formulas import FloatArray
from results.metrics.lesions import Overlap, skeleton
from results.metrics.meshes import surface, triangle_distances
from results.metrics.surface import ShapeSettings, boundary_distances, shape_values

SETTINGS = ShapeSettings(tolerance=2.0, lesion_iou=0.1)
EVEN = (1.0, 1.0, 1.0)


def ball(radius: float, spacing: Spacing = EVEN, *, shift: float = 0.0, side: float = 44.0) -> Mask:
    axes = [(np.arange(round(side / step)) + 0.5) * step - side / 2 for step in spacing]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return np.asarray(z**2 + y**2 + (x - shift) ** 2 <= radius**2)


def blobs(seed: int, shape: tuple[int, ...] = (12, 24, 24)) -> Mask:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return np.asarray(noise > np.quantile(noise, 0.8))


def sampled_distance(points: FloatArray, triangle: FloatArray, steps: int = 400) -> FloatArray:
    """Return the distance of points (n, 3) to a dense sample of a triangle."""
    first, second = np.meshgrid(*[np.linspace(0, 1, steps)] * 2)
    inside = first + second <= 1
    weights = np.stack([1 - first[inside] - second[inside], first[inside], second[inside]], axis=1)
    sample = weights @ triangle
    return np.asarray([np.linalg.norm(sample - point, axis=1).min() for point in points])


def test_distances_to_a_triangle_are_those_to_its_nearest_point() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        triangle, points = random.normal(size=(3, 3)), random.normal(size=(20, 3)) * 2
        distances = triangle_distances(points, np.broadcast_to(triangle, (20, 3, 3)))
        np.testing.assert_allclose(distances, sampled_distance(points, triangle), atol=0.01)


def test_a_degenerate_triangle_is_a_segment() -> None:
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    points = np.array([[1.0, 3, 0], [4, 0, 0]])
    np.testing.assert_allclose(triangle_distances(points, np.broadcast_to(triangle, (2, 3, 3))), [3.0, 2.0])


@pytest.mark.parametrize("spacing", [EVEN, (5.0, 0.7, 0.7)])
def test_distances_are_to_the_nearest_point_of_the_entire_surface(spacing: Spacing) -> None:
    truth, predicted = blobs(0), blobs(1)
    distances = boundary_distances(truth, predicted, spacing)
    corners, points = surface(predicted, spacing).corners, surface(truth, spacing).midpoints
    expected = np.array([triangle_distances(point[None], corners).min() for point in points[::20]])
    errors = distances.of_truth[::20] - expected
    assert errors.min() > -1e-6
    assert errors.mean() < 1e-3 * expected.mean()
    assert np.quantile(errors, 0.99) < 1e-6


@pytest.mark.parametrize("spacing", [EVEN, (2.0, 0.5, 1.0)])
def test_the_surface_of_a_box_has_bevelled_edges_and_corners(spacing: Spacing) -> None:
    mask = np.zeros((9, 13, 17), bool)
    mask[2:7, 2:11, 2:15] = True
    sides = [(length - 1) * step for length, step in zip((5, 9, 13), spacing, strict=True)]
    halves = [step / 2 for step in spacing]
    faces = 2 * (sides[0] * sides[1] + sides[1] * sides[2] + sides[2] * sides[0])
    edges = 4 * sum(sides[axis] * math.hypot(halves[axis - 1], halves[axis - 2]) for axis in range(3))
    corners = 8 * math.hypot(*(halves[axis - 1] * halves[axis - 2] for axis in range(3))) / 2
    assert surface(mask, spacing).sizes.sum() == pytest.approx(faces + edges + corners, rel=1e-5)


def test_the_surface_of_a_voxel_is_an_octahedron() -> None:
    voxel = np.zeros((3, 3, 3), bool)
    voxel[1, 1, 1] = True
    assert surface(voxel, EVEN).sizes.sum() == pytest.approx(2 * math.sqrt(3) * math.sqrt(0.5) ** 2)


@pytest.mark.parametrize("spacing", [EVEN, (2.0, 0.5, 1.0)])
def test_the_distance_of_concentric_balls_is_the_difference_of_their_radii(spacing: Spacing) -> None:
    truth, predicted = ball(15, spacing, side=60.0), ball(20, spacing, side=60.0)
    values = shape_values(truth, predicted, ShapeSettings(tolerance=6.5, lesion_iou=0.1), spacing=spacing)
    assert values.hd95 == pytest.approx(5.0, abs=0.8)
    assert values.assd == pytest.approx(5.0, abs=0.3)
    assert values.nsd == 1.0
    assert shape_values(truth, predicted, ShapeSettings(tolerance=3.5, lesion_iou=0.1), spacing=spacing).nsd == 0.0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("spacing", [EVEN, (2.0, 1.0, 1.0)])
def test_metrics_agree_with_monai_within_a_voxel(spacing: Spacing) -> None:
    """MONAI measures between boundary voxels, each with the same weight."""
    truth, predicted = ball(14, spacing), ball(12, spacing, shift=3.0)
    prediction, target = (
        torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (predicted, truth)
    )
    values = shape_values(truth, predicted, SETTINGS, spacing=spacing)
    options = {"spacing": list(spacing)}
    assert values.hd95 == pytest.approx(
        float(compute_hausdorff_distance(prediction, target, percentile=95, **options)), abs=1
    )
    assert values.assd == pytest.approx(
        float(compute_average_surface_distance(prediction, target, symmetric=True, **options)), abs=0.5
    )  # fmt: skip
    assert values.nsd == pytest.approx(float(compute_surface_dice(prediction, target, [2.0], **options)), abs=0.12)


def test_equal_volumes_are_perfect_and_the_distance_of_missing_ones_is_the_diagonal() -> None:
    mask = ball(10)
    perfect = shape_values(mask, mask, SETTINGS)
    assert perfect[:4] == pytest.approx((0.0, 0.0, 1.0, 1.0), abs=1e-9)
    missing = shape_values(mask, np.zeros_like(mask), SETTINGS, spacing=(2.0, 1.0, 1.0))
    assert missing.hd95 == pytest.approx(44 * math.sqrt(6))
    assert (missing.nsd, missing.lesion_fn) == (0.0, 1)
    assert math.isnan(shape_values(np.zeros_like(mask), mask, SETTINGS).hd95)


def test_lesions_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert Overlap.of(mask, mask).lesion_counts(min_iou=0.5) == (2, 0, 0)


def test_every_component_has_a_skeleton() -> None:
    mask = np.zeros((30, 30, 60), bool)
    mask[5:25, 5:25, 5:25] = ball(10, side=20.0)  # which thinning removes completely
    mask[14:17, 14:17, 30:58] = True
    actual = skeleton(mask)
    assert np.argwhere(actual[:, :, :28]).tolist() == [[14, 14, 14]]
    assert actual[:, :, 30:].any()


def test_the_centre_line_of_a_tube_is_inside_a_thinner_one() -> None:
    thick, thin = np.zeros((2, 30, 15, 15), bool)
    thick[2:28, 4:11, 4:11], thin[2:28, 6:9, 6:9] = True, True
    assert Overlap.of(thick, thin).centre_line_dice() == pytest.approx(1.0, abs=0.1)
    assert Overlap.of(thick, np.roll(thin, 6, axis=2)).centre_line_dice() < 0.2
