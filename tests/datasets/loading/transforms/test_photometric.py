import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from datasets.augment_settings import AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.transforms import photometric
from datasets.loading.transforms.photometric import LUMA, colour_matrix

SIZE = (64, 64)
KEYS = [(3, epoch, row) for epoch in range(4) for row in range(8)]
MANY = [(5, 0, place) for place in range(400)]
EVERY = AugmentSettings(hue=0.2, saturation=0.5, blur=2, sharpness=2, low_resolution=3, noise=0.05, dropout=0.4)
ALONE = {name: AugmentSettings(**{name: getattr(EVERY, name)}) for name in EVERY.changed}


def noise(channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, channels), dtype=np.uint8)


def flat(*values: int) -> np.ndarray:
    return np.broadcast_to(np.array(values, np.uint8), (*SIZE, len(values))).copy()


def changed(settings: AugmentSettings, image: np.ndarray, key: tuple[int, int, int]) -> np.ndarray:
    return Augmenter(settings, "image", SIZE)(image, None, key)[0]


def uniform(values: np.ndarray, low: float, high: float) -> None:
    """Assert that values are uniformly distributed (Kolmogorov's 0.1 % bound)."""
    places = (np.sort(values) - low) / (high - low)
    assert np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max() < 1.95 / math.sqrt(len(places))


def hue_of(rgb: np.ndarray) -> float:
    """Return the angle of a colour about the grey axis."""
    red, green, blue = rgb.astype(float)
    return math.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue)


def test_a_hue_shift_of_a_third_of_the_circle_moves_red_to_green_to_blue() -> None:
    np.testing.assert_allclose(colour_matrix(2 * math.pi / 3, 1.0) @ [10, 60, 200], [200, 10, 60], atol=1e-4)
    np.testing.assert_allclose(colour_matrix(0.0, 1.0), np.eye(3), atol=1e-6)


def test_hue_rotates_by_a_uniform_angle_and_keeps_the_mean_of_the_channels() -> None:
    colour = flat(150, 100, 110)
    pixels = np.array([changed(AugmentSettings(hue=0.1), colour, key)[0, 0] for key in MANY])
    turns = np.array([hue_of(pixel) - hue_of(colour[0, 0]) for pixel in pixels]) / (2 * math.pi)
    assert np.abs(turns).max() < 0.11
    uniform(turns, -0.1, 0.1)
    np.testing.assert_allclose(pixels.mean(axis=1), 120, atol=1)


def test_saturation_scales_the_distance_from_grey_uniformly_and_keeps_luma() -> None:
    colour = np.array([180, 100, 60])
    pixels = np.array([changed(AugmentSettings(saturation=0.4), flat(*colour), key)[0, 0] for key in MANY])
    factors = (pixels[:, 0] - pixels[:, 2].astype(float)) / 120
    uniform(factors, 0.6, 1.4)
    np.testing.assert_allclose(pixels @ LUMA, colour @ LUMA, atol=1)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_hue_and_saturation_change_only_rgb(channels: int) -> None:
    settings = AugmentSettings(hue=0.5, saturation=1)
    for key in KEYS:
        np.testing.assert_array_equal(changed(settings, noise(channels), key), noise(channels))
        grey = np.repeat(noise(), 3, axis=2)
        np.testing.assert_allclose(changed(settings, grey, key), grey.astype(int), atol=1)


def test_blur_has_a_uniform_standard_deviation_in_pixels() -> None:
    """The derivative of a blurred edge is the filter, whose variance is measured."""
    edge = np.zeros((*SIZE, 1), np.uint8)
    edge[:, 32:] = 255
    deviations = []
    for key in MANY:
        profile = np.diff(changed(AugmentSettings(blur=3), edge, key)[30, :, 0].astype(float))
        places = np.arange(63) - 31
        deviations.append(math.sqrt((profile * places**2).sum() / profile.sum()))
    deviations = np.array(deviations)
    assert deviations.max() < 3.1
    assert deviations.mean() == pytest.approx(1.5, abs=0.15)
    uniform(deviations[deviations > 0.5], 0.5, 3)  # narrower filters are one pixel wide


def test_sharpness_adds_a_uniform_multiple_of_the_difference_from_the_filtered_image() -> None:
    image = (gaussian_filter(noise()[..., 0].astype(float), 1.5) / 2 + 60).astype(np.uint8)[..., None]
    difference = image[..., 0] - gaussian_filter(image[..., 0].astype(float), 1.0, mode="mirror", truncate=3)
    factors = []
    for key in MANY:
        added = changed(AugmentSettings(sharpness=2), image, key)[..., 0].astype(float) - image[..., 0]
        factors.append((added * difference).sum() / (difference**2).sum())
        np.testing.assert_allclose(added, factors[-1] * difference, atol=2.5)  # the filtered image is rounded
    uniform(np.array(factors), 0, 2)


def test_low_resolution_removes_the_finest_structures_and_keeps_coarse_ones() -> None:
    rows, columns = np.indices(SIZE)
    fine = ((rows + columns) % 2 * 200).astype(np.uint8)[..., None]
    coarse = (120 + 60 * np.sin(rows / 10) * np.cos(columns / 10)).astype(np.uint8)[..., None]
    at_most_4 = [changed(AugmentSettings(low_resolution=4), fine, key).std() for key in KEYS]
    at_most_1_1 = [changed(AugmentSettings(low_resolution=1.1), fine, key).std() for key in KEYS]
    assert np.mean(at_most_4) < 0.3 * fine.std()
    assert np.mean(at_most_4) < np.mean(at_most_1_1)
    for key in KEYS:
        smooth = changed(AugmentSettings(low_resolution=4), coarse, key)
        np.testing.assert_allclose(smooth, coarse.astype(int), atol=8)
        assert (changed(AugmentSettings(low_resolution=1), noise(), key) == noise()).all()


def test_low_resolution_reduces_white_noise_by_uniform_factors() -> None:
    """Averaging squares of f x f pixels divides the variance of white noise by f^2, interpolation by somewhat more."""
    remaining = np.array([changed(AugmentSettings(low_resolution=4), noise(), key).var() for key in MANY])
    remaining /= noise().var()
    # Reference: a factor of 4, exactly, and one of 2.
    blocks = [noise()[..., 0].reshape(64 // f, f, 64 // f, f).mean(axis=(1, 3)).var() / noise().var() for f in (4, 2)]
    assert remaining.min() > 0.5 * blocks[0]
    assert (remaining < 1.1 * blocks[1]).mean() == pytest.approx(2 / 3, abs=0.12)  # of factors 1 to 4, those above 2


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_noise_equals_that_of_albumentations(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AugmentSettings(noise=0.1)
    noisy = [changed(settings, noise(channels), key) for key in KEYS]
    monkeypatch.setattr(photometric, "_Noise", photometric.A.GaussNoise)
    for image, key in zip(noisy, KEYS, strict=True):
        np.testing.assert_array_equal(image, changed(settings, noise(channels), key))


def test_dropout_masks_squares_of_a_uniform_fraction_and_every_pixel_equally_often() -> None:
    image = noise(3) // 2 + 1
    image[0, 0] = 0
    mean = np.rint(image.mean(axis=(0, 1))).astype(int)
    hidden = []
    for key in MANY:
        covered = changed(AugmentSettings(dropout=0.5), image, key)
        places = (covered != image).any(axis=2)
        np.testing.assert_allclose(covered[places], np.tile(mean, (places.sum(), 1)), atol=1)
        hidden.append(places)
    shares = np.array(hidden).mean(axis=(1, 2))
    assert shares.mean() == pytest.approx(0.25, abs=0.03)
    assert shares.max() < 0.75
    by_pixel = np.array(hidden).mean(axis=0)
    assert np.abs(by_pixel - 0.25).max() < 0.12  # 4 standard errors are 0.09


def test_dropout_masks_squares_of_an_eighth_of_the_shorter_side() -> None:
    wide = np.full((64, 160, 1), 200, np.uint8)
    wide[::2] = 0
    for key in KEYS:
        hidden = Augmenter(AugmentSettings(dropout=0.05), "image", (64, 160))(wide, None, key)[0] == 100
        for region in range(1, label(hidden[..., 0])[1] + 1):
            rows, columns = np.nonzero(label(hidden[..., 0])[0] == region)
            if rows.min() > 0 and rows.max() < 63 and columns.min() > 0 and columns.max() < 159:
                assert len(rows) % 64 == 0


@pytest.mark.parametrize("settings", [EVERY, *ALONE.values()], ids=["all", *ALONE])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_transforms_of_values_keep_shape_type_input_and_targets(settings: AugmentSettings, channels: int) -> None:
    image, mask = noise(channels), np.eye(64, dtype=np.uint8)
    for key in KEYS[:8]:
        result, same = Augmenter(settings, "mask", SIZE)(image, mask, key)
        assert (result.shape, result.dtype) == (image.shape, np.uint8)
        assert same is mask
        np.testing.assert_array_equal(image, noise(channels))


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_keep_their_order(channels: int) -> None:
    settings = EVERY.model_copy(update={"noise": 0.0})
    for key in KEYS[:8]:
        together = changed(settings, noise(channels), key)
        for number in range(channels):
            alone = changed(settings, noise(channels)[..., number : number + 1], key)
            np.testing.assert_allclose(together[..., number], alone[..., 0].astype(int), atol=3)
