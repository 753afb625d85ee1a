"""Small downloads whose files are hard to tell apart: slices, several kinds of masks, predictions, objects."""

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from datasets.source import Pixels
from tests.support.layouts import HEIGHT, WIDTH, blob
from tests.support.pictures import picture, save


def pairs(root: Path, image: str, masks: Mapping[str, int], count: int = 12) -> Path:
    """Write images and masks at paths with `{name}`; `masks` are the seeds of the masks by path."""
    for number in range(count):
        name = f"{number:02d}"
        save(picture(number), root / image.replace("{name}", name))
        for path, seed in masks.items():
            save(blob(number + seed, value=255), root / path.replace("{name}", name))
    return root


def slices_of_patients(root: Path, ends: tuple[str, ...] = ("1", "2", "3")) -> Path:
    """Write slices named after the folder of their patient, with a mask beside each."""
    for patient in range(5):
        for number, end in enumerate(ends):
            name = f"TCGA_{patient}/TCGA_{patient}_{end}"
            save(picture(10 * patient + number), root / f"{name}.tif")
            save(blob(10 * patient + number, value=255), root / f"{name}_mask.tif")
    return root


def modalities(root: Path) -> Path:
    """Write two modalities of each patient in its folder, and one mask of both."""
    for patient in range(5):
        for number, modality in enumerate(("flair", "t1ce")):
            save(picture(10 * patient + number), root / f"P{patient}x/P{patient}x_{modality}.png")
        save(blob(patient, value=255), root / f"P{patient}x/P{patient}x_seg.png")
    return root


def second_masks(root: Path) -> Path:
    """Write images of categories, numbered in brackets, of which one has a second mask."""
    for category, kind in enumerate(("benign", "malignant")):
        for number in range(1, 13):
            name, seed = f"{kind}/{kind} ({number})", 20 * category + number
            save(picture(seed), root / f"{name}.png")
            save(blob(seed, value=255), root / f"{name}_mask.png")
    save(blob(77, value=255), root / "benign/benign (4)_mask_1.png")
    return root


def field_of_view(shift: int) -> Pixels:
    """Return the mask of a round field of view, slightly moved."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    return np.asarray(cv2.circle(mask, (WIDTH // 2 + shift % 3, HEIGHT // 2), 22, 255, -1), np.uint8)


def fields_of_view(root: Path, folder: str, masks: int = 12) -> Path:
    """Write masks of the field of view in the folder `mask`, and masks of vessels of some images in another one."""
    pairs(root, "images/{name}.png", {})
    for number in range(12):
        save(field_of_view(number), root / "mask" / f"{number:02d}_mask.png")
        if number < masks:
            save(blob(number, value=255), root / folder / f"{number:02d}.png")
    return root


def attributes(root: Path) -> Path:
    """Write a mask of each attribute, whose name has several words, after the name of the image."""
    masks = {f"truth/ISIC_{{name}}_attribute_{name}.png": 20 * seed for seed, name in enumerate(("milia_cyst", "net"))}
    return pairs(root, "input/ISIC_{name}.jpg", masks)


def folds_of_masks(root: Path) -> Path:
    """Write images in one folder, and masks in a folder for each class within one for each fold."""
    for number in range(12):
        save(picture(number), root / "images" / f"J{number:03d}.png")
        for seed, organ in enumerate(("heart", "left lung")):
            path = root / f"fold{number % 2 + 1}" / "masks" / organ / f"J{number:03d}.gif"
            save(blob(number + 20 * seed, value=255), path)
    return root


def masks_of_objects(root: Path) -> Path:
    """Write a folder for each image, with a mask for each of its objects."""
    for number in range(6):
        name = f"{number * 7919:08x}"
        save(picture(number), root / name / "images" / f"{name}.png")
        for object_ in range(3):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[4 + 12 * object_ : 12 + 12 * object_, 8:30] = 255
            save(mask, root / name / "masks" / f"{number * 7919 + 31 * object_ + 1:08x}.png")
    return root


def sides(root: Path) -> Path:
    """Write images and masks of two sides in folders, with the same names."""
    for seed, side in enumerate(("left", "right")):
        for number in range(8):
            save(picture(number + 20 * seed), root / side / f"{number}.png")
            save(blob(number + 20 * seed, value=255), root / f"{side}_mask" / f"{number}.png")
    return root


def numbered_patients(root: Path) -> Path:
    """Write slices in folders of patients that are plain numbers, below folders of parts."""
    for patient in range(9):
        part = "train" if patient < 6 else "test"
        for number in range(3):
            for folder, pixels in (("images", picture(10 * patient + number)), ("masks", blob(10 * patient + number))):
                save(pixels, root / part / f"{patient:03d}" / folder / f"{number}.png")
    return root


def boxes_in_coco(path: Path) -> None:
    """Write a COCO file that has boxes only."""
    images = [{"id": 0, "file_name": "00.png", "width": WIDTH, "height": HEIGHT}]
    boxes = [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}))
