"""Sheets of values as written by other software, and the command that imports them."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from study.cli.main import main

Rows = Iterable[Sequence[object]]


def study(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command; return its exit status, output and errors."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def write_sheet(path: Path, header: Sequence[str], rows: Rows) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def sheet_of_data_sets(path: Path, sets: int = 35, encoders: int = 6, seeds: int = 3) -> Path:
    """A benchmark: data sets x encoders x seeds x five metrics, of which hd95 is better if lower."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(sets):
        base = random.uniform(0.5, 0.9)
        for encoder in range(encoders):
            for seed in range(seeds):
                for metric in ("mean_iou", "dice", "precision", "recall", "hd95"):
                    value = float(np.clip(base + 0.01 * encoder + random.normal(0, 0.02), 0, 1))
                    value = 50 * (1 - value) if metric == "hd95" else value
                    rows.append((f"set {number}", f"encoder {encoder}", seed, metric, repr(value)))
    return write_sheet(path, ["dataset", "backbone", "seed", "metric", "value"], rows)


def null_sheet(path: Path, seed: int, folds: int = 9, images: int = 10) -> Path:
    """Two equally good arms: their differences on the test images have random signs."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0.7, 0.1, images)
    rows = []
    for arm in ("none", "pretrained"):
        habit = random.normal(0, 0.05, images)
        for fold in range(folds):
            scores = np.clip(difficulty + habit + random.normal(0, 0.02, images), 0, 1)
            rows += [(arm, fold, f"image {place}", "dice", repr(float(score))) for place, score in enumerate(scores)]
    return write_sheet(path, ["pathway", "fold", "image", "metric", "value"], rows)


def write_nnunet(
    folder: Path,
    configurations: Sequence[str] = ("2d", "3d_fullres"),
    *,
    sizes: Sequence[int] = (4, 4, 4, 4, 4),
    data_set: str = "Dataset001_Lungs",
    labels: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Path:
    """A results folder of nnU-Net version 2: folds with these numbers of cases and two labels."""
    random = np.random.default_rng(seed)
    labels = labels or {"background": 0, "lung": 1, "heart": 2}
    keys = [str(tuple(value)) if isinstance(value, list) else str(value) for value in labels.values() if value != 0]
    for configuration in configurations:
        arm = folder / data_set / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        for fold, size in enumerate(sizes):
            cases = [_case(f"case_{100 * fold + place:03d}", random, keys) for place in range(size)]
            place = arm / f"fold_{fold}" / "validation"
            place.mkdir(parents=True)
            summary = {"foreground_mean": {}, "mean": {}, "metric_per_case": cases}
            (place / "summary.json").write_text(json.dumps(summary))
        (arm / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def _case(name: str, random: np.random.Generator, labels: Sequence[str]) -> dict[str, object]:
    metrics = {}
    for label in labels:
        tp, fp, fn = (int(number) for number in random.integers(50, 900, 3))
        counts = {"TP": tp, "FP": fp, "FN": fn, "TN": 10000 - tp - fp - fn}
        metrics[label] = counts | {"Dice": 2 * tp / (2 * tp + fp + fn), "IoU": tp / (tp + fp + fn)}
    return {"metrics": metrics, "prediction_file": f"/results/{name}.nii.gz", "reference_file": f"/gt/{name}.nii.gz"}


def summaries(folder: Path) -> Mapping[Path, list[dict[str, object]]]:
    return {path: json.loads(path.read_text())["metric_per_case"] for path in sorted(folder.rglob("summary.json"))}
