"""A finished study of small images on disk: two folds of one pathway, trained in this process within seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from study.analysis.tables import write_outcome
from study.config.schema import Checkpoint
from study.planning.graph import Plan
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests.support.blobs import blob
from tests.support.tiny import planned, tiny

CLASSES = ["blob", "left half"]
IMAGES = 10


@dataclass(frozen=True)
class Finished:
    """A finished study and the folder of its data."""

    store: Store
    plan: Plan
    data: Path
    cache: Path

    @property
    def stages(self) -> list[str]:
        """Digests of the target stages, by fold."""
        return [replicate.chain[-1] for replicate in self.plan.replicates]


def write_pictures(root: Path, *, overlapping: bool) -> None:
    """Write images of several shapes with a blob, and its left half as a second class."""
    for number in range(IMAGES):
        width, height = (64, 48) if number % 2 else (50, 70)
        pixels, mask = blob(number, width=width, height=height)
        half = mask & (np.arange(width) < np.flatnonzero(mask.any(axis=0)).mean())
        places = {"images": pixels}
        if overlapping:
            places |= {f"masks/{name}": part * np.uint8(255) for name, part in zip(CLASSES, (mask, half), strict=True)}
        else:
            places |= {"masks": mask + half}
        for place, array in places.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(array, np.uint8)).save(root / place / f"p{number}.png")
    if not overlapping:
        (root / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")


def finished(
    root: Path,
    *,
    overlapping: bool = False,
    changes: dict[str, Any] | None = None,
    write: Callable[[Path], object] | None = None,
) -> Finished:
    """Train, score and compare a study under `root`, of images or of the data written by `write`."""
    data, cache, store = root / "data", root / "cache", Store(root / "runs")
    if write is None:
        write_pictures(data, overlapping=overlapping)
    else:
        write(data)
    document = tiny({
        "data": {"hospital": {"source": "folder", "root": str(data), "classes": CLASSES}},
        "validation": {"min_cases": 1},
        "image.fit": "letterbox",
        "image.prepare": {"normalise": True},
        "evaluate": {"size": 40, "threshold": 0.4},
        "keep": {"weights": "all"},
        "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 48, "batch_size": 4,
                               "optimizer": {"name": "adam", "lr": 0.005}}},
        "pathways": {"none": ["segment"]},
    } | (changes or {}))  # fmt: skip
    plan = planned(document, cache)
    perform_all(plan, store, cache)
    store.study("tiny").mkdir(parents=True)
    (store.study("tiny") / "spec.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    write_outcome(plan, store)
    return Finished(store, plan, data, cache)


def perform_all(plan: Plan, store: Store, cache: Path, *, first: int | None = None) -> None:
    """Train and score the stages of a plan in this process, or only the first ones."""
    runtime = RuntimeContext(storage=store.root, cache=cache, cpus=1, checkpoint=Checkpoint(epochs=1, seconds=0))
    for node in list(plan.nodes.values())[:first]:
        run_stage(stage_job(plan, node), runtime, WorkerContext(report=lambda _: None))
