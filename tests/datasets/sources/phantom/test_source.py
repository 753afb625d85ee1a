from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from datasets.sources import PhantomSettings, open_source
from datasets.sources.phantom.source import CLASSES


def test_an_image_does_not_depend_on_earlier_ones() -> None:
    settings = PhantomSettings(images=10, patients=3, size=64)
    forwards, backwards = open_source(settings), open_source(settings)
    images = [forwards.image(row) for row in range(10)]
    back = [backwards.image(row) for row in reversed(range(10))]
    assert all(np.array_equal(a, b) for a, b in zip(images, reversed(back), strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"style": "b"}, {"images": 13}, {"patients": 4}, {"size": 96}])
def test_different_phantoms_share_neither_patients_nor_images(change: dict[str, Any], tmp_path: Path) -> None:
    settings = PhantomSettings(images=12, patients=5, size=64)
    a, b = (open_source(phantom).index(tmp_path) for phantom in (settings, settings.model_copy(update=change)))
    assert not set(a.patients) & set(b.patients)
    assert not set(a.content) & set(b.content)


def test_the_split_does_not_change_the_images(tmp_path: Path) -> None:
    plain = PhantomSettings(images=6, patients=3)
    with_split = PhantomSettings(images=6, patients=3, split={"seed": 4})
    assert vars(open_source(plain).index(tmp_path)) == vars(open_source(with_split).index(tmp_path))


def test_every_patient_has_several_images_and_one_category(tmp_path: Path) -> None:
    index = open_source(PhantomSettings()).index(tmp_path)
    assert len(set(index.patients)) == 20
    assert all(index.patients.count(patient) == 3 for patient in index.patients)
    assert len(set(zip(index.patients, index.categories, strict=True))) == 20
    assert set(index.categories) == {"opacity", "cardiomegaly", "normal"}


def test_labels_are_those_of_the_masks() -> None:
    source = open_source(PhantomSettings(images=60))
    doubtful = 0
    for row in range(60):
        expected = {name: bool(mask.any()) for name, mask in zip(CLASSES, source.masks(row), strict=True)}
        for name, value in zip(("opacity", "tube"), source.labels(row)[[0, 2]], strict=True):
            doubtful += np.isnan(value)
            assert np.isnan(value) or bool(value) == expected[name]
    assert 0 < doubtful < 20


def test_structures_overlap_and_opacities_are_in_the_lungs() -> None:
    source = open_source(PhantomSettings(images=20))
    masks = np.stack([source.masks(row) for row in range(20)])
    right, left, heart, opacity, _ = masks.swapaxes(0, 1)
    assert (left & heart).any()
    assert opacity.any()
    assert not (opacity & ~(right | left)).any()


def test_a_patient_keeps_the_anatomy_and_patients_differ() -> None:
    source = open_source(PhantomSettings(images=40, patients=10))
    width = np.array([source.boxes(row)[2].width for row in range(40)]).reshape(10, 4)
    assert width.std(axis=1).max() < width.mean(axis=1).std() / 2


def test_boxes_and_centres_are_those_of_the_masks() -> None:
    source = open_source(PhantomSettings(images=4, patients=2))
    heart = source.masks(1)[2]
    ys, xs = np.nonzero(heart)
    box = source.boxes(1)[2]
    assert (box.name, box.x, box.y) == ("heart", xs.min(), ys.min())
    assert (box.x + box.width, box.y + box.height) == (xs.max() + 1, ys.max() + 1)
    assert source.centres(1)["heart"] == pytest.approx((xs.mean() + 0.5, ys.mean() + 0.5))


def test_lungs_are_darker_than_the_heart_but_cannot_be_segmented_by_a_threshold() -> None:
    source = open_source(PhantomSettings(images=6, patients=6))
    for row in range(6):
        image, (right, left, heart, _, _) = source.image(row), source.masks(row)
        lungs = (right | left) > 0
        assert image[lungs & (heart == 0)].mean() < image[heart > 0].mean() - 20
        best = max((lungs & dark).sum() / (lungs | dark).sum() for t in range(10, 250, 10) for dark in [image < t])
        assert best < 0.85


def test_styles_are_different_domains() -> None:
    images_by_style = {s: [open_source(PhantomSettings(style=s)).image(row) for row in range(6)] for s in "abc"}
    contrast = {style: np.mean([image.std() for image in images]) for style, images in images_by_style.items()}
    grain = {
        style: np.mean([np.abs(np.diff(image[200:230, 60:100].astype(float))).mean() for image in images])
        for style, images in images_by_style.items()
    }
    assert contrast["b"] < contrast["a"] < contrast["c"]
    assert grain["b"] > 2 * grain["a"]


def test_more_patients_than_images_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"patients is 20; allowed: 1 to images \(5\)"):
        PhantomSettings(images=5)
