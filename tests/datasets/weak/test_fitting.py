"""Scribbles in the input of a network, against a loop over pixels."""

import numpy as np
import pytest

from datasets.settings import ImageSettings
from datasets.source import IGNORE
from datasets.targets import Fit, fit_masks
from datasets.weak.fitting import agreeing, fit_scribbles


def scribbles(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a few annotated pixels of two classes and the background."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, 3 if len(shape) == 2 else 2, shape)
    return np.where(random.random(shape) < 0.02, drawn, IGNORE).astype(np.uint8)


@pytest.mark.parametrize("shape", [(90, 130), (3, 90, 130)], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("image", [ImageSettings(size=(21, 32)), ImageSettings(size=32, fit="letterbox")])
def test_every_annotated_pixel_counts_where_the_image_shrinks(shape: tuple[int, ...], image: ImageSettings) -> None:
    drawn = scribbles(shape)
    fitted = fit_scribbles(drawn, image)
    top, left, height, width = Fit.of(image, 90, 130).inner
    values: dict[tuple[int, ...], set[int]] = {}
    for *plane, row, column in np.argwhere(drawn != IGNORE).tolist():
        place = (*plane, top + int((row + 0.5) * height / 90), left + int((column + 0.5) * width / 130))
        values.setdefault(place, set()).add(int(drawn[(*plane, row, column)]))
    expected = np.full((*shape[:-2], *image.shape), IGNORE, np.uint8)
    for place, found in values.items():
        expected[place] = found.pop() if len(found) == 1 else IGNORE
    np.testing.assert_array_equal(fitted, expected)
    assert len(values) > 10


def test_a_line_of_one_pixel_stays_connected() -> None:
    line = np.full((512, 512), IGNORE, np.uint8)
    line[:, 101] = 1
    fitted = fit_scribbles(line, ImageSettings(size=64))
    assert (fitted == 1).sum() == 64
    assert (fitted[:, 12] == 1).all()


def test_scribbles_grow_as_masks_do() -> None:
    drawn, image = scribbles((20, 30)), ImageSettings(size=(64, 80))
    np.testing.assert_array_equal(fit_scribbles(drawn, image), fit_masks(drawn, image))


def test_one_side_may_grow_while_the_other_shrinks() -> None:
    line = np.full((10, 100), IGNORE, np.uint8)
    line[4] = 2
    fitted = fit_scribbles(line, ImageSettings(size=(40, 20)))
    assert (fitted[16:20] == 2).all()
    assert (fitted == 2).sum() == 4 * 20


@pytest.mark.parametrize("shape", [(20, 40), (2, 20, 40)])
def test_padding_is_not_annotated(shape: tuple[int, ...]) -> None:
    fitted = fit_scribbles(np.zeros(shape, np.uint8), ImageSettings(size=32, fit="letterbox"))
    assert (fitted[..., :8, :] == IGNORE).all()
    assert (fitted[..., 8:24, :] == 0).all()
    assert (fitted[..., 24:, :] == IGNORE).all()


def test_labels_that_contradict_masks_are_not_annotated() -> None:
    labels, masks = np.array([[0, 1, 2, IGNORE]], np.uint8), np.array([[0, 2, 2, 1]], np.uint8)
    assert agreeing(labels, masks).tolist() == [[0, IGNORE, 2, IGNORE]]
