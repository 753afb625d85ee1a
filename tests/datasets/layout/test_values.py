"""What the values of masks mean."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.errors import DataError
from datasets.layout.proposal import Proposal
from datasets.layout.tables import ClassTable
from datasets.layout.values import looks_like_masks, sample_masks, value_settings
from datasets.source import Pixels
from tests.support.layouts import blob, coloured
from tests.support.pictures import picture, save, truncate


def proposed(folder: Path, masks: list[Pixels], *, suffix: str = "png", classes: ClassTable | None = None) -> Proposal:
    """Return the settings for some masks."""
    for number, mask in enumerate(masks):
        save(mask, folder / f"{number}.{suffix}")
    sample = sample_masks(folder, [f"{number}.{suffix}" for number in range(len(masks))])
    return value_settings(sample, classes or ClassTable(), "lesion", by_class=False)


def test_a_single_value_is_named_after_the_structure(tmp_path: Path) -> None:
    for value in (1, 255):
        masks = [blob(number, value=value) for number in range(3)]
        assert proposed(tmp_path / str(value), masks).settings == {"mask_values": {"lesion": value}}


def test_soft_edges_and_traces_of_compression_get_a_threshold(tmp_path: Path) -> None:
    masks = [cv2.GaussianBlur(blob(number, value=255), (3, 3), 0.6) for number in range(3)]
    assert proposed(tmp_path / "soft", [np.asarray(mask, np.uint8) for mask in masks]).settings == {
        "mask_threshold": 127
    }
    masks = [blob(number, value=255) for number in range(3)]
    assert proposed(tmp_path / "jpeg", masks, suffix="jpg").settings == {"mask_threshold": 127}


def test_jpeg_masks_of_several_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="JPEG files with more than two values"):
        proposed(tmp_path, [blob(number, value=100) for number in range(3)], suffix="jpg")


def test_255_beside_ids_is_unlabelled(tmp_path: Path) -> None:
    mask = np.maximum(blob(0), blob(1, value=2))
    mask[:2] = 255
    assert proposed(tmp_path / "ids", [mask]).settings == {"ignore": 255}
    single = np.where(mask == 2, 1, mask).astype(np.uint8)
    assert proposed(tmp_path / "single", [single]).settings == {"mask_values": {"lesion": 1, "ignore": 255}}


def test_the_value_of_most_pixels_is_the_background(tmp_path: Path) -> None:
    masks = [np.where(blob(number) > 0, 128, 255).astype(np.uint8) for number in range(3)]
    for mask in masks:
        mask[20:24, 30:34] = 0
    values = {"background": 255, "class_0": 0, "class_128": 128}
    assert proposed(tmp_path, masks).settings == {"mask_values": values}


def test_a_table_names_ids(tmp_path: Path) -> None:
    classes = ClassTable(file="classes.txt", names=("cup", "disc"), by_id={1: "cup", 2: "disc"})
    mask = np.maximum(blob(0), blob(1, value=2))
    assert proposed(tmp_path, [mask], classes=classes).settings == {"mask_values": {"cup": 1, "disc": 2}}


def test_ids_up_to_different_numbers_are_objects(tmp_path: Path) -> None:
    masks = [np.repeat(np.arange(count + 1, dtype=np.uint8)[None], 8, 0) for count in (3, 5, 9)]
    assert proposed(tmp_path, masks).settings == {"mask_threshold": 0}


def test_colours_become_a_table_and_the_most_frequent_one_is_background_without_black(tmp_path: Path) -> None:
    ids = np.maximum(blob(0), blob(1, value=2))
    masks = [coloured(ids, ((255, 255, 255), (255, 0, 0), (0, 0, 255)))]
    table = {"background": [255, 255, 255], "class_1": [0, 0, 255], "class_2": [255, 0, 0]}
    assert proposed(tmp_path, masks).settings == {"mask_values": table}


def test_colours_with_soft_edges_are_refused(tmp_path: Path) -> None:
    ids = np.repeat(np.repeat(np.maximum(blob(0), blob(1, value=2)), 4, 0), 4, 1)
    mask = cv2.GaussianBlur(coloured(ids, ((0, 0, 0), (255, 0, 0), (0, 255, 0))), (9, 9), 3)
    with pytest.raises(DataError, match=r"masks have \d+ colours, as soft edges make; allowed"):
        proposed(tmp_path, [np.asarray(mask, np.uint8)])


def test_images_do_not_look_like_masks(tmp_path: Path) -> None:
    save(picture(0), tmp_path / "image.png")
    save(picture(0), tmp_path / "image.jpg")
    save(blob(0), tmp_path / "mask.png")
    save(blob(0, value=255), tmp_path / "mask.jpg", quality=60)
    looks = {
        name: looks_like_masks(sample_masks(tmp_path, [name]))
        for name in ("image.png", "image.jpg", "mask.png", "mask.jpg")
    }
    assert looks == {"image.png": False, "image.jpg": False, "mask.png": True, "mask.jpg": True}


def test_an_unreadable_mask_is_a_fault_of_the_sample(tmp_path: Path) -> None:
    save(blob(0), tmp_path / "0.png")
    save(blob(1), tmp_path / "1.png")
    truncate(tmp_path / "0.png")
    sample = sample_masks(tmp_path, ["0.png", "1.png"])
    assert len(sample.greys) == 1
    assert sample.faults[0].startswith("0.png cannot be read")
