"""Small data sets in the shapes of public downloads."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.source import Pixels
from tests.support.pictures import picture, save

HEIGHT, WIDTH = 48, 64


def blob(seed: int, *, value: int = 1) -> Pixels:
    """Return a mask (height, width) of an ellipse, different for every seed."""
    random = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre = (int(random.integers(20, 44)), int(random.integers(16, 32)))
    axes = (int(random.integers(6, 16)), int(random.integers(5, 12)))
    return np.asarray(cv2.ellipse(mask, centre, axes, int(random.integers(0, 180)), 0, 360, value, -1), np.uint8)


def colour_picture(seed: int) -> Pixels:
    """Return an RGB image with content."""
    return np.stack([picture(3 * seed + channel) for channel in range(3)], axis=2)


def paired_folders(root: Path) -> Path:
    """Write images and JPEG masks of 0 and 255 with a suffix in two folders."""
    for number in range(12):
        save(colour_picture(number), root / "images" / f"IMG_{number:04d}.jpg")
        save(blob(number, value=255), root / "masks" / f"IMG_{number:04d}_mask.jpg", quality=70)
    return root


def list_files(root: Path) -> Path:
    """Write masks of 0 and 1 with lists of the published parts, and an image without a mask in no list."""
    names = [f"{number:03d}" for number in range(14)]
    for number, name in enumerate(names):
        save(picture(number), root / "data" / "scans" / f"{name}.png")
        if number < 13:
            save(blob(number), root / "data" / "labels" / f"{name}.png")
    for part, chosen in (("train", names[:8]), ("val", names[8:10]), ("test", names[10:13])):
        (root / f"{part}.txt").write_text("\n".join(chosen) + "\n")
    return root


def two_annotators(root: Path) -> Path:
    """Write images of both sides of patients and masks of two annotators, all in one folder."""
    for number in range(14):
        name = f"Image_{number // 2 + 1:02d}{'LR'[number % 2]}"
        save(colour_picture(number), root / f"{name}.jpg")
        save(blob(number, value=255) > 0, root / f"{name}_1stHO.png")
        save(blob(number + 50, value=255) > 0, root / f"{name}_2ndHO.png")
    return root


def em_slices(root: Path) -> Path:
    """Write slices of a stack as TIFF files with masks of 0 and 255."""
    for number in range(10):
        save(picture(number), root / "stack1" / "raw" / f"{number:02d}.tif")
        save(blob(number, value=255), root / "stack1" / "mitochondria" / f"{number:02d}.tif")
    return root


def coco(root: Path) -> Path:
    """Write polygons of two categories in a COCO file."""
    images, annotations = [], []
    for number in range(10):
        name = f"{number:06d}.jpg"
        save(colour_picture(number), root / "train2017" / name)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for category in (1, 2) if number % 2 else (1,):
            outline, _ = cv2.findContours(blob(number + 20 * category), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            polygon = outline[0].ravel().tolist()
            box = cv2.boundingRect(outline[0])
            annotation = {"id": len(annotations), "image_id": number, "category_id": category, "iscrowd": 0}
            annotations.append(annotation | {"segmentation": [polygon], "bbox": list(box), "area": 9.0})
    categories = [{"id": 1, "name": "polyp"}, {"id": 2, "name": "tool"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def nnunet(root: Path) -> Path:
    """Write a raw data set of nnU-Net with single images of two classes."""
    for number in range(8):
        name = f"case_{number:03d}"
        save(picture(number), root / "imagesTr" / f"{name}_0000.png")
        save(np.maximum(blob(number), blob(number + 30, value=2)), root / "labelsTr" / f"{name}.png")
    document = {
        "channel_names": {"0": "US"}, "labels": {"background": 0, "nerve": 1, "vessel": 2}, "numTraining": 8,
        "file_ending": ".png",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(document))
    return root


def coloured(ids: Pixels, palette: Sequence[tuple[int, int, int]]) -> Pixels:
    """Return ids drawn in colours."""
    return np.array(palette, np.uint8)[ids]


def colour_masks(root: Path) -> Path:
    """Write colour masks of two classes in folders of parts, with a table of colours."""
    palette = ((0, 0, 0), (250, 50, 83), (51, 221, 255))
    for part, count in (("train", 8), ("test", 4)):
        for number in range(count):
            ids = np.maximum(blob(number + count), blob(number + 30, value=2))
            save(colour_picture(number + 3 * count), root / part / "images" / f"{number}.png")
            save(coloured(ids, palette), root / part / "masks" / f"{number}.png")
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nlesion:250,50,83::\nhair:51,221,255::\n"
    )
    return root


def voc(root: Path) -> Path:
    """Write masks with VOC's palette, whose borders have 255, and the list of the training images."""
    palette = [0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * (256 * 3 - 12), 224, 224, 192]
    names = [f"2007_{number:06d}" for number in range(10)]
    for number, name in enumerate(names):
        ids = blob(number, value=1 + number % 2)
        border = cv2.dilate(ids, np.ones((3, 3))) > ids
        mask = Image.fromarray(np.where(border, 255, ids).astype(np.uint8))
        mask.putpalette(palette[:768])
        save(colour_picture(number), root / "JPEGImages" / f"{name}.jpg")
        for folder in ("SegmentationClass", "SegmentationObject"):
            (root / folder).mkdir(exist_ok=True)
            mask.save(root / folder / f"{name}.png")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names[:6]) + "\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names[6:]) + "\n")
    return root


def instance_ids(root: Path) -> Path:
    """Write masks that number the objects of each image, of 16 bits."""
    for number in range(10):
        ids = np.zeros((HEIGHT, WIDTH), np.uint16)
        for object_ in range(3 + number % 4):
            ids[
                4 + 10 * (object_ // 3) : 10 + 10 * (object_ // 3), 4 + 18 * (object_ % 3) : 16 + 18 * (object_ % 3)
            ] = object_ + 1
        save(picture(number), root / "cells" / f"t{number:03d}.tif")
        save(ids, root / "cells_GT" / f"man_seg{number:03d}.tif")
    return root


def class_folders(root: Path) -> Path:
    """Write masks of overlapping classes in a folder for each class, some empty."""
    for number in range(10):
        save(picture(number), root / "CXR_png" / f"MCU_{number:04d}.png")
        for side, seed in (("leftMask", 0), ("rightMask", 40)):
            save(blob(number + seed, value=255) > 0, root / "ManualMask" / side / f"MCU_{number:04d}.png")
    return root


def patient_folders(root: Path) -> Path:
    """Write slices in a folder for each patient, masks beside them with a suffix."""
    for patient in range(6):
        for number in range(2 + patient % 2):
            name = f"patient_{patient:02d}/slice_{number}"
            save(picture(10 * patient + number), root / f"{name}.tif")
            save(blob(10 * patient + number, value=255), root / f"{name}_mask.tif")
    return root


def outline(mask: Pixels) -> list[list[float]]:
    """Return the corners (x, y) of the outline of a mask, at the centres of its border pixels."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [[float(x), float(y)] for x, y in contours[0][:, 0]]


def labelme(root: Path) -> Path:
    """Write images with a JSON file of LabelMe beside each: polygons, a box, a background; one image has no file."""
    for number in range(10):
        save(colour_picture(number), root / f"scan {number}.jpg")
        shapes = [{"label": "kidney", "points": outline(blob(number)), "shape_type": "polygon"}]
        shapes.append({"label": "_background_", "points": [[0, 0], [5, 0], [5, 5]], "shape_type": "polygon"})
        if number % 2:
            shapes.append({"label": "cyst", "points": [[30.0, 20.0], [34.0, 20.0]], "shape_type": "circle"})
        document = {"version": "5.0.1", "shapes": shapes, "imagePath": f"..\\{root.name}\\scan {number}.jpg"}
        document |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        if number < 9:
            (root / f"scan {number}.json").write_text(json.dumps(document))
    return root


def cvat(root: Path, *, boxes: bool = False) -> Path:
    """Write images with an XML file of CVAT: polygons, a mask and, if wanted, a box; one image has no shape."""
    elements = []
    for number in range(8):
        save(picture(number), root / "images" / f"frame_{number:06d}.png")
        corners = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline(blob(number)))
        shapes = [f'<polygon label="nerve" occluded="0" points="{corners}" z_order="0"></polygon>']
        if number == 0:
            shapes.append('<mask label="vessel" rle="2, 3, 1, 6" left="4" top="5" width="4" height="3"></mask>')
        if number == 1 and boxes:
            shapes.append('<box label="vessel" xtl="1.0" ytl="2.0" xbr="9.0" ybr="8.0"></box>')
        inner = "".join(shapes) if number < 7 else ""
        elements.append(
            f'<image id="{number}" name="frame_{number:06d}.png" width="{WIDTH}" height="{HEIGHT}">{inner}</image>'
        )
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{"".join(elements)}</annotations>'
    )
    (root / "annotations.xml").write_text(text)
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "paired_folders": paired_folders, "list_files": list_files, "two_annotators": two_annotators,
    "em_slices": em_slices,
    "coco": coco, "nnunet": nnunet, "colour_masks": colour_masks, "voc": voc, "instance_ids": instance_ids,
    "class_folders": class_folders, "patient_folders": patient_folders, "labelme": labelme, "cvat": cvat,
}  # fmt: skip
