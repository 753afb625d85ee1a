"""Trains with the parts added by the packages' pages, in the tree that is first on the path; prints their names."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from study.analysis.tables import write_outcome
from study.config.document import parse_yaml
from study.planning.graph import Plan
from study.search.load import load_plan
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import run_stage
from tests import docs

OWN = docs.blocks(docs.read("README.md"), "yaml")[0]
FRAGMENTS = docs.blocks(docs.read("models/README.md"), "yaml fragment")
ADDED: dict[str, Any] = {
    "data": {"mine": {"source": "two_bones", "root": "bones"}},
    "image": {"size": 32},
    "validation": {"min_cases": 1},
    "stages": {"classify": {"epochs": 1}, "turn": {"epochs": 1}, "segment": {"steps": 2}},
    "compare": {
        "architecture": ["fcn"],
        "backbone": ["tu-lcnet_050"],
        "pathway": ["none", "turned"],
        "labelled_fraction": [1.0],
        "segment.loss": [{"margin": 1.0}],
        "folds": 2,
    },
}


def write_bones(root: Path) -> None:
    """Write the layout described on the page on sources."""
    random, lines = np.random.default_rng(0), ["scan,patient"]
    for folder in ("scans", "annotations"):
        (root / folder).mkdir(parents=True)
    for number in range(16):
        ids = np.zeros((40, 32), np.uint8)
        ids[5 + number : 20 + number, 4:20], ids[8 + number : 12 + number, 8:14] = 1, 2
        pixels = random.integers(0, 60, ids.shape, np.uint8) + 80 * ids
        for folder, array in (("scans", pixels), ("annotations", ids)):
            Image.fromarray(array).save(root / folder / f"s{number:02d}.png")
        lines.append(f"s{number:02d},p{number // 2}")
    (root / "patients.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def plan_of(document: dict[str, Any], place: Path) -> Plan:
    return load_plan(document, file="study.yaml", cache=place / "cache")


def main(place: Path) -> None:
    document_with_all: dict[str, Any] = parse_yaml(OWN)
    before = plan_of(document_with_all, place).nodes.keys()
    for fragment in FRAGMENTS:
        assert plan_of(docs.merged(document_with_all, parse_yaml(fragment)), place).nodes.keys() - before, fragment
    document = document_with_all
    for changes in (*map(parse_yaml, FRAGMENTS), ADDED):
        document = docs.merged(document, changes)
    write_bones(place / "bones")
    plan, store = plan_of(document, place), Store(place / "runs")
    context = RuntimeContext(storage=store.root, cache=place / "cache", cpus=1, checkpoint=plan.spec.checkpoint)
    for node in plan.nodes.values():
        run_stage(stage_job(plan, node), context, WorkerContext(report=lambda _: None))
    write_outcome(plan, store)
    import pyarrow.parquet as pq

    metrics = pq.read_table(store.study(plan.spec.name) / "results.parquet")["metric"].unique().to_pylist()
    records = [store.record(digest) for digest in plan.nodes]
    print(*metrics, *(record["architecture"] for record in records))  # noqa: T201
    print(*{record["settings"]["task"] for record in records}, *plan.spec.stages["segment"].loss)  # noqa: T201
    print(*{name for record in records for name in record["settings"]["loss"]}, plan.spec.data["mine"].source)  # noqa: T201


main(Path(sys.argv[1]))
