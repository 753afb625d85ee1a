"""A study of frozen encoders with a linear head, with and without cached feature maps."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save_file

from models.build import Blueprint, build
from study.config.document import Document
from study.store.store import Store
from tests.bench.figure import Figure, interleaved, ratio
from tests.bench.process import Cost, watched

ENCODERS = (
    "tu-vit_small_patch16_224", "tu-vit_base_patch16_224", "tu-deit_small_patch16_224", "resnet50", "tu-convnext_tiny",
    "resnext50_32x4d",
)  # fmt: skip
FRACTIONS, FOLDS, EPOCHS = (0.25, 0.5, 1.0), 5, 40
QUICK_EPOCHS = 10
SIDES = {"cached": "true", "computed": "false"}


def frozen_features(*, quick: bool) -> Iterator[Figure]:
    """Measure the speed-up of the study with cached features, and the difference of its results."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        folder = Path(place)
        names = ENCODERS[:1] if quick else ENCODERS
        files = {name: _random_weights(name, folder / f"{name}.safetensors") for name in names}
        study = folder / "frozen.yaml"
        study.write_text(yaml.safe_dump(_document(files, quick=quick)), encoding="utf-8")
        costs = interleaved({side: lambda side=side: _run(study, folder / side, side) for side in SIDES}, 1)
        stages = {side: _stage_seconds(Store(folder / side / "runs")) for side in SIDES}
        what = f"{len(names)} frozen encoders"
        cached, computed = ([cost.seconds for cost in costs[side]] for side in SIDES)
        why = (
            f"stages take {stages['cached']:.0f} s in all, of {stages['computed']:.0f} s without cached features; "
            f"{cached[0] - stages['cached']:.0f} s pass outside of them"
        )
        yield ratio(f"{what}: study with cached features", computed, cached, None if quick else 10.0, why=why)
        faster = [stages["computed"] / stages["cached"]]
        yield Figure(name=f"{what}: stages with cached features", unit="ratio", values=faster, better="higher")
        yield Figure(name=f"{what}: largest difference of a metric", unit="", values=[_difference(folder)], goal=1e-5)


def _document(files: dict[str, Path], *, quick: bool) -> Document:
    weights = {name: {"file": str(file)} for name, file in files.items()}
    swaps = [{"backbone": name, "initial_weights": weights[other]}
              for name in files for other in files if other != name]  # fmt: skip
    return {
        "name": "frozen",
        "data": {"made": {"source": "phantom", "images": 60, "patients": 30, "seed": 3, "size": 128}},
        "image": {"size": 224, "channels": 3},
        "stages": {"segment": {"task": "segmentation", "data": "made", "epochs": QUICK_EPOCHS if quick else EPOCHS}},
        "pathways": {"frozen": [{"stage": "segment", "freeze": ["encoder"]}]},
        "compare": {
            "architecture": ["linear"], "backbone": list(files), "initial_weights": list(weights.values()),
            "labelled_fraction": [1.0] if quick else list(FRACTIONS), "folds": 2 if quick else FOLDS, "exclude": swaps,
        },
        "keep": {"weights": "none"},
    }  # fmt: skip


def _random_weights(backbone: str, file: Path) -> Path:
    torch.manual_seed(1)
    encoder = build(Blueprint(architecture="linear", backbone=backbone, channels=3, outputs=1)).encoder
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, file)
    return file


def _run(study: Path, folder: Path, side: str) -> Cost:
    folder.mkdir()
    words = ("study", "run", study, "--storage", folder / "runs", "--cache", folder / "cache")
    return watched(*words, "--set", f"resources.cache_features={SIDES[side]}", log=folder / "log")


def _stage_seconds(store: Store) -> float:
    return sum(store.record(digest)["seconds"] for digest in store.finished())


def _difference(folder: Path) -> float:
    """Return the largest difference of a metric between both sides."""
    tables = (pq.read_table(Store(folder / side / "runs").study("frozen") / "results.parquet") for side in SIDES)
    values = ([row["value"] for row in table.to_pylist()] for table in tables)
    pairs = zip(*values, strict=True)
    return max(abs(first - second) for first, second in pairs if first is not None and math.isfinite(first))
