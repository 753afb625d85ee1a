"""Cost of planning: the start of the command line, and large plans."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from study.config.document import Document
from study.monitoring.plan_summary import summary
from study.search.load import load_plan
from study.store.store import Store
from tests.bench.figure import Figure, cpu_seconds, cpu_seconds_of_children

DEMO = "study/catalog/demo.yaml"


def start(*, quick: bool) -> Iterator[Figure]:
    """Measure complete processes of the command line."""
    with tempfile.TemporaryDirectory() as place:
        lines = {
            "study --help": (0.3, "--help"),
            "study plan (demo)": (0.6, "plan", DEMO, "--storage", f"{place}/runs", "--cache", f"{place}/cache"),
        }
        for name, (goal, *words) in lines.items():
            command = [sys.executable, "-m", "study", *words]
            call = partial(subprocess.run, command, check=True, capture_output=True)
            call()  # compiles modules, fills the cache
            values = [cpu_seconds_of_children(call) for _ in range(3 if quick else 5)]
            yield Figure(name=name, unit="CPU s", values=values, goal=goal, why="nine tenths of it are imports")


def large_plan(*, quick: bool) -> Iterator[Figure]:
    """Measure a plan of 100,000 replicates (quick: 10,000) and its summary."""
    document = _document(seeds=10 if quick else 100)
    with tempfile.TemporaryDirectory() as place:
        count = _replicates(document, Path(place))
        values = [cpu_seconds(partial(_replicates, document, Path(place))) for _ in range(2 if quick else 5)]
        yield Figure(name=f"plan of {count:,} replicates", unit="CPU s", values=values, goal=10.0)


def _replicates(document: Document, place: Path) -> int:
    plan = load_plan(document, file="bench", cache=place)
    count: int = summary(plan, Store(place / "runs"), place)["replicates"]
    return count


def _document(*, seeds: int) -> Document:
    """20 arms x 5 fractions x 10 folds x seeds."""
    return {
        "name": "large",
        "data": {
            "clinic": {"source": "phantom", "images": 120, "patients": 60, "seed": 1},
            "hospital": {"source": "phantom", "images": 120, "patients": 60, "seed": 2, "style": "b"},
        },
        "stages": {
            "classify": {"task": "classification", "data": "clinic", "epochs": 10},
            "segment": {"task": "segmentation", "data": "hospital", "steps": 100},
        },
        "pathways": {"none": ["segment"], "classified": ["classify", "segment"]},
        "compare": {
            "architecture": ["unet", "deeplabv3plus"],
            "backbone": ["resnet18", "resnet34", "resnet50", "vgg16", "resnext50_32x4d"],
            "labelled_fraction": [0.1, 0.25, 0.5, 0.75, 1.0],
            "folds": 10,
            "seeds": list(range(seeds)),
            "baseline": {"pathway": "none"},
        },
    }
