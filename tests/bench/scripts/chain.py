"""A study as a plain script, as for a single project: image files as a data set, one stage, a chain of stages."""

import copy
import csv
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from models.encoders.vision import smp

Case = dict[str, Any]
Loss = Callable[[Tensor, Tensor], Tensor]
Weights = dict[str, Tensor] | None
cv2.setNumThreads(0)  # the workers provide the parallelism


@dataclass(frozen=True)
class Machine:
    """Resources of one training process."""

    threads: int
    workers: int


def read_masks(root: Path) -> dict[str, Case]:
    """Return path and mask crops by file name (structure.csv)."""
    masks: dict[str, list[Any]] = defaultdict(list)
    with (root / "structure.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["Mask"]:
                place = int(row["Left"]), int(row["Top"])
                masks[row["Filename"]].append((row["Template Name"], root / row["Mask"], *place))
    return {path.name: {"path": path, "masks": masks[path.name]} for path in (root / "images").iterdir()}


def read_boxes(root: Path) -> dict[str, Case]:
    """Return path, findings and boxes by file name (COCO)."""
    coco = json.loads((root / "annotations" / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    cases = {}
    for image in coco["images"]:
        findings = {name.strip() for name in image["metadata"].get("finding", "").split(",")}
        cases[image["id"]] = {"path": root / "images" / image["file_name"], "found": findings, "boxes": []}
    for box in coco["annotations"]:
        if "category_id" in box:
            cases[box["image_id"]]["boxes"].append((names[box["category_id"]], box["bbox"]))
    return {case["path"].name: case for case in cases.values()}


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Decodes a file at every access."""

    def __init__(self, cases: list[Case], stage: Case, size: int, *, augment: bool) -> None:
        self.cases, self.stage, self.size = cases, stage, size
        mild = stage["augment"]
        steps = [
            A.Affine(
                rotate=(-mild["rotate"], mild["rotate"]),
                scale=(1 - mild["scale"], 1 + mild["scale"]),
                translate_percent=(-mild["shift"], mild["shift"]),
                keep_ratio=True,
                p=1,
            ),
            A.RandomBrightnessContrast(brightness_limit=mild["brightness"], contrast_limit=mild["contrast"], p=1),
        ]
        self.change = A.Compose(steps) if augment else None

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        case, task = self.cases[number], self.stage["task"]
        original = cv2.imread(str(case["path"]), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(original, (self.size, self.size), interpolation=cv2.INTER_AREA)[..., None]
        if task == "segmentation":
            masks = self._masks(case, original.shape)
            if self.change:
                changed = self.change(image=image, mask=masks)
                image, masks = changed["image"], changed["mask"]
            return _tensor(image) / 255, _tensor(masks)
        image = self.change(image=image)["image"] if self.change else image
        pixels = _tensor(image) / 255
        if task == "reconstruction":
            return pixels, pixels
        return pixels, torch.tensor([float(label in case["found"]) for label in self.stage["outputs"]])

    def _masks(self, case: Case, shape: tuple[int, ...]) -> np.ndarray:
        size, names = self.size, self.stage["outputs"]
        planes = np.zeros((size, size, len(names)), np.uint8)
        for name, (x, y, width, height) in case.get("boxes", ()):
            left, right = (round(place * size / shape[1]) for place in (x, x + width))
            top, bottom = (round(place * size / shape[0]) for place in (y, y + height))
            planes[top:bottom, left:right, names.index(name)] = 1
        for name, path, left, top in case.get("masks", ()):
            if name in names:
                crop = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
                mask = np.zeros(shape, np.uint8)
                mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
                planes[..., names.index(name)] |= cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST)
        return planes


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float()


class Classifier(nn.Module):
    """The encoder and a linear layer over its average."""

    def __init__(self, backbone: str, outputs: int) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(backbone, in_channels=1, weights=None)
        self.head = nn.Linear(self.encoder.out_channels[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(images)[-1].mean(dim=(2, 3)))


def train_stage(stage: Case, split: dict[str, list[Case]], size: int, weights: Weights, machine: Machine) -> nn.Module:
    """Train on files; the weights of the best epoch are kept, or of the last one without validation."""
    torch.manual_seed(0)
    torch.set_num_threads(machine.threads)
    model = make_model(stage)
    if weights is not None:
        model.encoder.load_state_dict(weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=stage["lr"])
    lossy = _loss(stage["task"])
    training = _loader(split["train"], stage, size, machine, training=True)
    validation = _loader(split["validation"], stage, size, machine, training=False)
    best, best_weights = float("inf"), None
    for _ in range(stage["epochs"]):
        model.train()
        for images, target in training:
            loss = lossy(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if split["validation"]:
            judged = evaluate(model, validation, lossy)[0]
            if judged < best:
                best, best_weights = judged, copy.deepcopy(model.state_dict())
    if best_weights is not None:
        model.load_state_dict(best_weights)
    return model


def make_model(stage: Case) -> nn.Module:
    """Return an untrained model of a stage."""
    if stage["task"] == "classification":
        return Classifier(stage["backbone"], len(stage["outputs"]))
    make = getattr(smp, stage["model"])
    model: nn.Module = make(stage["backbone"], encoder_weights=None, in_channels=1, classes=len(stage["outputs"]))
    return model


def _loss(task: str) -> Loss:
    overlap, pixelwise = smp.losses.DiceLoss(mode="multilabel"), F.binary_cross_entropy_with_logits
    if task == "segmentation":
        return lambda logits, masks: pixelwise(logits, masks) + overlap(logits, masks)
    return F.mse_loss if task == "reconstruction" else pixelwise


def _loader(cases: list[Case], stage: Case, size: int, machine: Machine, *, training: bool) -> DataLoader[Any]:
    return DataLoader(
        Files(cases, stage, size, augment=training),
        batch_size=stage["batch_size"],
        shuffle=training and bool(cases),
        num_workers=machine.workers,
        persistent_workers=machine.workers > 0,
        drop_last=training and len(cases) % stage["batch_size"] == 1,
    )


@torch.no_grad()
def evaluate(model: nn.Module, batches: DataLoader[Any], lossy: Loss) -> tuple[float, float]:
    """Return loss and mean IoU over classes that occur."""
    model.eval()
    loss, images, intersection, union, true = 0.0, 0, torch.tensor(0), torch.tensor(0), torch.tensor(0)
    for pixels, target in batches:
        logits = model(pixels)
        loss, images = loss + float(lossy(logits, target)) * len(pixels), images + len(pixels)
        if logits.dim() == 4:
            predicted, truth = logits > 0, target > 0.5
            intersection = intersection + (predicted & truth).sum(dim=(0, 2, 3))
            union = union + (predicted | truth).sum(dim=(0, 2, 3))
            true = true + truth.sum(dim=(0, 2, 3))
    return loss / max(images, 1), float((intersection / union)[true > 0].mean())


def run_chain(study: Case, pathway: str, fold: int, fraction: float, machine: Machine) -> float:
    """Train every stage of one trial and return its mean IoU on the test images."""
    readers = {"boxes": read_boxes, "ccxs": read_masks}
    cases = {name: readers[name](Path(root)) for name, root in study["roots"].items()}
    weights: Weights = None
    for name in study["pathways"][pathway]:
        stage = study["stages"][name]
        splits = study["splits"][name]
        named = splits.get(f"{fold} {fraction}") or splits["all"]
        split = {part: [cases[stage["data"]][id_] for id_ in ids] for part, ids in named.items()}
        model = train_stage(stage, split, study["size"], weights, machine)
        weights = model.encoder.state_dict()
    test = _loader(split["test"], stage, study["size"], machine, training=False)
    return evaluate(model, test, _loss("segmentation"))[1]
