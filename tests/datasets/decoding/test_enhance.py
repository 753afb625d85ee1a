"""Fixed enhancements of images, each compared with its formula."""

import cv2
import numpy as np
import pytest

from datasets.decoding.enhance import enhance
from datasets.settings import ImageSettings, PrepareSettings
from datasets.source import Pixels
from datasets.targets import fit_image


def ramp(low: int = 20, high: int = 120) -> Pixels:
    return np.linspace(low, high, 64 * 64).reshape(64, 64).astype(np.uint8)


def settings(**values: object) -> PrepareSettings:
    return PrepareSettings.model_validate(values)


def test_the_default_settings_change_nothing() -> None:
    assert enhance(ramp(), settings()) is not None
    assert (enhance(ramp(), settings()) == ramp()).all()


def test_normalise_stretches_the_grey_values_to_the_full_range() -> None:
    grey = ramp()
    expected = np.rint((grey.astype(float) - 20) / 100 * 255)

    assert (enhance(grey, settings(normalise=True)) == expected).all()


def test_a_constant_image_is_unchanged() -> None:
    assert (enhance(np.full((8, 8), 7, np.uint8), settings(normalise=True)) == 7).all()


@pytest.mark.parametrize("gamma", [0.5, 2.2])
def test_gamma_raises_grey_values_to_its_power(gamma: float) -> None:
    grey = ramp(0, 255)

    assert (enhance(grey, settings(gamma=gamma)) == np.rint(255 * (grey / 255) ** gamma)).all()


def test_equalise_is_opencvs_clahe() -> None:
    expected = cv2.createCLAHE(3.0, (4, 4)).apply(ramp())

    assert (enhance(ramp(), settings(equalise={"clip": 3.0, "tiles": 4})) == expected).all()


def test_the_order_is_normalise_equalise_gamma() -> None:
    step = enhance(ramp(), settings(normalise=True))
    step = enhance(step, settings(equalise={}))

    assert (enhance(ramp(), settings(normalise=True, equalise={}, gamma=2)) == enhance(step, settings(gamma=2))).all()


def test_colours_change_their_lightness_and_keep_their_hue() -> None:
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[:, :8], colour[:, 8:] = (120, 40, 40), (40, 40, 120)
    darker = enhance(colour, settings(gamma=1.5))
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0].astype(int) for image in (colour, darker))
    turned = np.abs(before - after)  # of 180 hue steps

    assert darker.sum() < colour.sum()
    assert np.minimum(turned, 180 - turned).max() <= 5


def test_images_are_enhanced_before_they_are_resized() -> None:
    image = ImageSettings(size=16, prepare=settings(normalise=True))

    assert fit_image(ramp(), image).max() > 240
