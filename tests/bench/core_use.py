"""Utilisation of the machine by a study: trained images per second compared with one bare loop per core."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

from study.planning.graph import image_epochs
from study.search.load import load_plan
from study.store.store import Store
from tests.bench.figure import Figure, interleaved
from tests.bench.process import watched

SIDE, CLASSES = 64, ["right_lung", "left_lung"]
CORES = os.cpu_count() or 1
SECONDS = 550.0
"""Time in seconds within which further rounds end."""


def core_use(*, quick: bool) -> Iterator[Figure]:
    """Measure a study with one stage per fold and seed from start to end, including validation and scoring."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        study = _Study(Path(place), epochs=4 if quick else 20, seeds=1 if quick else 2)
        sides = {"study": study.seconds, "bare": lambda: bare_rate(4.0 if quick else 20.0)}
        results = interleaved(sides, 1 if quick else 3, within=SECONDS)
    shares = [study.images / elapsed / rate for elapsed, rate in zip(results["study"], results["bare"], strict=True)]
    name = f"images trained a second, study on {CORES} cores against {CORES} bare loops"
    why = "Ray and its processes start before the first stage, and tables are made after the last"
    goal = None if quick else 0.85  # start-up takes half of a short study
    yield Figure(name=name, unit="ratio", values=shares, goal=goal, better="higher", why=why)
    within = [study.images / elapsed / rate for elapsed, rate in zip(study.in_stages, results["bare"], strict=True)]
    yield Figure(name="the same within its stages only", unit="ratio", values=within, better="higher")
    yield Figure(name="images a second of the bare loops", unit="1/s", values=results["bare"], better="higher")
    yield Figure(name="that study, whole", unit="s", values=results["study"])


class _Study:
    def __init__(self, folder: Path, *, epochs: int, seeds: int) -> None:
        self._folder, self._runs = folder, 0
        document = _document(epochs, seeds)
        self._file = folder / "core-use.yaml"
        self._file.write_text(yaml.safe_dump(document), encoding="utf-8")
        plan = load_plan(document, file="core-use", cache=folder / "cache")
        self.images = sum(image_epochs(plan, node) for node in plan.nodes.values())
        self.in_stages: list[float] = []
        """Seconds of all stages divided by the number of cores, by run."""

    def seconds(self) -> float:
        """Run it in a new storage and return its wall-clock time."""
        self._runs += 1
        store = Store(self._folder / str(self._runs))
        words = ("study", "run", self._file, "--storage", store.root, "--cache", self._folder / "cache")
        cost = watched(*words, log=self._folder / "log")
        self.in_stages.append(sum(store.record(digest)["seconds"] for digest in store.finished()) / CORES)
        return cost.seconds


def _document(epochs: int, seeds: int) -> dict[str, Any]:
    stage = {"task": "segmentation", "data": "hospital", "epochs": epochs, "batch_size": 8}
    data = {"source": "phantom", "images": 60, "patients": 60, "seed": 3, "size": SIDE, "classes": CLASSES}
    return {
        "name": "core-use",
        "data": {"hospital": data},
        "image": {"size": SIDE},
        "stages": {"segment": stage},
        "pathways": {"none": ["segment"]},
        "compare": {
            "architecture": ["unet"], "backbone": ["resnet18"], "initial_weights": ["random"],
            "labelled_fraction": [1.0], "folds": 4, "seeds": list(range(seeds)), "baseline": {"pathway": "none"},
        },
    }  # fmt: skip


def bare_rate(lasting: float) -> float:
    """Return the images per second of all bare loops together, each on one thread."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(CORES)]
    processes = [context.Process(target=_bare, args=(theirs, lasting)) for _, theirs in pipes]
    for process in processes:
        process.start()
    for ours, _ in pipes:
        ours.recv()
    for ours, _ in pipes:
        ours.send("go")
    rate = sum(ours.recv() for ours, _ in pipes)
    for process in processes:
        process.join()
    return float(rate)


def _bare(pipe: Connection, lasting: float) -> None:
    import torch

    from tests.bench.one_stage import BATCH, Lesson, bare_steps

    torch.set_num_threads(1)
    updates = 8
    steps = bare_steps(Lesson.random_noise("unet", SIDE, updates))
    steps()
    pipe.send("ready")
    pipe.recv()
    images, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < lasting:
        steps()
        images += updates * BATCH
    pipe.send(images / (time.perf_counter() - begun))
