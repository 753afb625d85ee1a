import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from datasets.loading.transforms.elastic import ELASTIC_SIGMA, DisplacementField

SHAPES = [(256, 256), (64, 160), (50, 33), (16, 16)]
REACH = 10.0


def fields(shape: tuple[int, int], count: int) -> np.ndarray:
    """Return independent displacements in x and y, (count, 2, height, width)."""
    random = np.random.default_rng(0)
    field = DisplacementField(shape, REACH)
    places = np.indices(shape)[::-1]
    return np.array([field(random, np.eye(2, 3)) - places for _ in range(count)])


def full_resolution_field(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Return a component of the field of Simard et al., smoothed at full resolution and away from the border."""
    sigma = ELASTIC_SIGMA * min(shape)
    margin = round(4 * sigma)
    noise = random.uniform(-1, 1, [side + 2 * margin for side in shape])
    smooth = gaussian_filter(noise, sigma)[margin : margin + shape[0], margin : margin + shape[1]]
    return smooth * REACH * np.sqrt(3) * 2 * np.sqrt(np.pi) * sigma / 3


@pytest.mark.parametrize("shape", SHAPES)
def test_displacements_have_mean_0_and_a_third_of_the_reach_as_deviation(shape: tuple[int, int]) -> None:
    drawn = fields(shape, 300)
    assert drawn.shape == (300, 2, *shape)
    assert abs(drawn.mean()) < 0.03 * REACH
    assert drawn.std() == pytest.approx(REACH / 3, rel=0.03)


@pytest.mark.parametrize("shape", SHAPES)
def test_displacements_are_as_strong_at_the_border_as_in_the_centre(shape: tuple[int, int]) -> None:
    drawn = fields(shape, 600)
    places = [(0, 0), (0, -1), (-1, 0), (-1, -1), (0, shape[1] // 2), (shape[0] // 2, shape[1] // 2)]
    deviations = [drawn[:, :, row, column].std() for row, column in places]
    np.testing.assert_allclose(deviations, REACH / 3, rtol=0.1)  # 3 standard errors of 1,200 values are 6 %


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_displacements_of_neighbours_have_the_correlation_of_the_filter(share: float) -> None:
    shape = (256, 256)
    drawn, lag = fields(shape, 100), round(share * 256)
    expected = np.exp(-((lag / (ELASTIC_SIGMA * 256)) ** 2) / 4)
    for pair in ((drawn[..., lag:], drawn[..., :-lag]), (drawn[..., lag:, :], drawn[..., :-lag, :])):
        assert np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1] == pytest.approx(expected, abs=0.06)
    assert abs(np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1]) < 0.06


@pytest.mark.parametrize("shape", [(128, 128), (64, 160)])
def test_the_field_has_the_moments_of_one_smoothed_at_full_resolution(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    full = np.array([full_resolution_field(shape, random) for _ in range(200)])
    coarse = fields(shape, 100).reshape(-1, *shape)
    assert coarse.std() == pytest.approx(full.std(), rel=0.05)
    # The gradient determines how strongly small structures are deformed.
    for axis in (1, 2):
        assert np.diff(coarse, axis=axis).std() == pytest.approx(np.diff(full, axis=axis).std(), rel=0.05)
    np.testing.assert_allclose(np.quantile(coarse, [0.01, 0.25, 0.75, 0.99]),
                               np.quantile(full, [0.01, 0.25, 0.75, 0.99]), atol=0.1 * REACH)  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_is_applied_to_the_displaced_positions(shape: tuple[int, int]) -> None:
    matrix = np.array([[0.5, 2.0, 7.0], [-1.0, 0.25, -3.0]])
    plain, mapped = (
        np.array(DisplacementField(shape, REACH)(np.random.default_rng(0), applied))
        for applied in (np.eye(2, 3), matrix)
    )
    expected = np.einsum("ij,jhw->ihw", matrix[:, :2], plain) + matrix[:, 2, None, None]
    np.testing.assert_allclose(mapped, expected, atol=2e-3)
