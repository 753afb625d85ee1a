"""Chest images for the complete study: the real ones, generated ones in the same layout, or either as small PNGs."""

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from study.config.document import Document, with_paths
from study.planning.graph import Plan
from study.search.load import load_plan
from tests.support.ccxs import write_many_ccxs
from tests.support.pictures import picture, save

REAL = (Path(__file__).parents[2] / os.environ.get("STUDY_REAL_DATA", "../shared/data")).resolve()
CLASSES = ["Right Lung", "Left Lung", "Cardiomediastinum", "Airways", "Ground Glass Opacities", "Consolidation"]
MILD = {"rotate": 7, "scale": 0.1, "shift": 0.05, "brightness": 0.2, "contrast": 0.2}
SIZE = 64
FINDINGS = ("COVID-19", "Pneumonia", "No Finding")


def chest_images(folder: Path) -> Path:
    """Return the folder of both sets: the real ones if available, else generated ones of the usual size."""
    if (REAL / "ccxs").is_dir() and (REAL / "gb-lung-boxes").is_dir():
        return REAL
    write_many_ccxs(folder / "ccxs", images=100, side=1024)
    _write_boxes(folder / "gb-lung-boxes", images=148, side=1024)
    return folder


def _write_boxes(root: Path, *, images: int, side: int) -> None:
    """Write lung boxes in the published layout, on JPEGs with two bright halves."""
    entries: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(images):
        pixels, name = picture(number + 5000, width=side, height=side) // 2, f"{number:03d}.jpg"
        for category in (1, 2):
            x, y = (category - 1) * side // 2 + number % 40, side // 8
            pixels[y : y + side // 2, x : x + side // 3] += 90
            box = [x, y, side // 3, side // 2]
            boxes.append({"id": 2 * number + category, "image_id": number, "bbox": box, "category_id": category})
        save(pixels, root / "images" / name, quality=92)
        metadata = {"patientid": f"{number + 1000}", "finding": FINDINGS[number % len(FINDINGS)]}
        entries.append({"id": number, "file_name": name, "width": side, "height": side, "metadata": metadata})
    categories = [{"id": 1, "name": "Right Lung"}, {"id": 2, "name": "Left Lung"}]
    _write_coco(root, {"images": entries, "annotations": boxes, "categories": categories})


def _write_coco(root: Path, coco: dict[str, Any]) -> None:
    path = root / "annotations" / "annotations.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(coco))


def shrunk(source: Path, folder: Path, *, side: int = SIZE) -> Path:
    """Write both sets again with PNGs of (side, side), without the cost of large files and their formats."""
    _shrink_boxes(source / "gb-lung-boxes", folder / "gb-lung-boxes", side)
    _shrink_masks(source / "ccxs", folder / "ccxs", side)
    return folder


def _shrink_image(path: Path, to: Path, side: int) -> tuple[int, int]:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    save(np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), np.uint8), to)
    return pixels.shape[1], pixels.shape[0]


def _shrink_boxes(source: Path, root: Path, side: int) -> None:
    coco = json.loads((source / "annotations" / "annotations.json").read_text())
    existing = [image for image in coco["images"] if (source / "images" / image["file_name"]).is_file()]
    scale = {}
    for image in existing:
        path = source / "images" / image["file_name"]
        image["file_name"] = f"{path.stem}-{image['id']}.png"
        width, height = _shrink_image(path, root / "images" / image["file_name"], side)
        scale[image["id"]] = np.array([side / width, side / height] * 2)
        image["width"] = image["height"] = side
    boxes = [box for box in coco["annotations"] if box["image_id"] in scale]
    for box in boxes:
        box["bbox"] = (np.array(box["bbox"]) * scale[box["image_id"]]).tolist()
    _write_coco(root, {"images": existing, "annotations": boxes, "categories": coco["categories"]})


def _shrink_masks(source: Path, root: Path, side: int) -> None:
    shapes = {}
    for path in (source / "images").iterdir():
        shapes[path.name] = _shrink_image(path, root / "images" / f"{path.name}.png", side)
    with (source / "structure.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows, header = list(reader), reader.fieldnames or ()
    for row in rows:
        if row["Mask"]:
            _shrink_crop(source / row["Mask"], root / row["Mask"], row, shapes[row["Filename"]], side)
        place = {"Left": 0, "Top": 0, "Width": side, "Height": side, "Resolution": f"{side}x{side}"}
        row.update({"Filename": f"{row['Filename']}.png"} | place)
    _write_csv(root / "structure.csv", header, rows)
    with (source / "metadata.csv").open(newline="") as file:
        patients = list(csv.DictReader(file))
    for row in patients:
        row["filename"] = f"{row['filename']}.png"
    _write_csv(root / "metadata.csv", list(patients[0]), patients)


def _shrink_crop(path: Path, to: Path, row: dict[str, str], shape: tuple[int, int], side: int) -> None:
    crop = (cv2.imread(str(path)) > 0).any(axis=2)
    mask = np.zeros((shape[1], shape[0]), np.uint8)
    top, left = int(row["Top"]), int(row["Left"])
    mask[top : top + crop.shape[0], left : left + crop.shape[1]] = 255 * crop
    save(np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8), to)


def _write_csv(path: Path, header: Sequence[str], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)


def chest_study(root: Path, changes: dict[str, Any] | None = None) -> Document:
    """Return the study: no pretraining, or findings or images first, then lung boxes, then masks."""
    stage = {"batch_size": 16, "epochs": 2, "augment": MILD}
    return with_paths({
        "name": "chest",
        "data": {
            "boxes": {"source": "covid_lung_boxes", "root": str(root / "gb-lung-boxes")},
            "ccxs": {"source": "ccxs", "root": str(root / "ccxs"), "classes": CLASSES},
        },
        "image": {"size": SIZE},
        "stages": {
            "classify": {"task": "classification", "data": "boxes", **stage},
            "encode": {"task": "reconstruction", "data": "boxes", "architecture": "unet", **stage},
            "boxes": {"task": "segmentation", "data": "boxes", "target": "box_mask", **stage, "batch_size": 8},
            "segment": {"task": "segmentation", "data": "ccxs", **stage, "batch_size": 8, "epochs": 4},
        },
        "pathways": {
            "none": ["segment"],
            "classified": ["classify", "boxes", "segment"],
            "encoded": ["encode", "boxes", "segment"],
        },
        "compare": {
            "architecture": ["unet"], "backbone": ["resnet18"], "initial_weights": ["random"],
            "labelled_fraction": [0.25, 1.0], "folds": 2, "seeds": [0], "baseline": {"pathway": "none"},
        },
        "leaks": "exclude",
    }, changes or {})  # fmt: skip


def script_study(document: Document, cache: Path) -> dict[str, Any]:
    """Return the same study for the scripts, with the same images for training, validation and test."""
    plan = load_plan(document, file="chest", cache=cache)
    shutil.rmtree(cache)
    stages: dict[str, Any] = {}
    splits: dict[str, Any] = {}
    for replicate in plan.replicates:
        for digest in replicate.chain:
            name, stage = _stage(plan, digest)
            stages[name] = stage
            key = "all" if stage["data"] == "boxes" else f"{replicate.fold} {replicate.labelled}"
            ids = plan.views[stage["data"]].index.ids
            reading = plan.views[stage["data"]].stage_rows(plan.node(digest).selection)
            parts = {"train": reading.train, "validation": reading.validation}
            parts |= {"test": plan.split(replicate).test} if digest == replicate.chain[-1] else {}
            splits.setdefault(name, {})[key] = {part: [ids[row] for row in rows] for part, rows in parts.items()}
    compare = plan.spec.compare
    return {
        "roots": {name: str(data["root"]) for name, data in document["data"].items()},
        "size": plan.spec.image.size,
        "stages": stages,
        "pathways": {name: [link.stage for link in links] for name, links in plan.spec.pathways.items()},
        "folds": compare.folds,
        "fractions": list(document["compare"]["labelled_fraction"]),
        "splits": splits,
    }


def _stage(plan: Plan, digest: str) -> tuple[str, dict[str, Any]]:
    identity = plan.node(digest).identity
    settings = identity.step.settings
    return identity.step.stage, {
        "task": settings.task, "data": settings.data, "epochs": settings.epochs, "batch_size": settings.batch_size,
        "lr": settings.optimizer.lr, "model": "Unet", "backbone": identity.step.backbone,
        "outputs": identity.names, "augment": MILD,
    }  # fmt: skip
