"""Study files as nested mappings that are changed by dotted path and written."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from study.config.document import with_paths
from study.planning.graph import Plan
from study.search.load import load_plan

Document = dict[str, Any]

BASE: Document = {
    "name": "small",
    "data": {
        "clinic": {"source": "phantom", "images": 24, "patients": 12, "seed": 1, "size": 64},
        "hospital": {"source": "phantom", "images": 20, "patients": 10, "seed": 2, "size": 64, "style": "b"},
    },
    "image": {"size": 64},
    "stages": {
        "classify": {"task": "classification", "data": "clinic", "epochs": 1},
        "boxes": {"task": "segmentation", "data": "clinic", "target": "box_mask", "epochs": 1},
        "segment": {"task": "segmentation", "data": "hospital", "epochs": 1},
    },
    "pathways": {
        "none": ["segment"],
        "one_step": ["classify", "segment"],
        "two_step": ["classify", "boxes", {"stage": "segment", "carry": "encoder+decoder"}],
    },
    "compare": {
        "architecture": ["unet"],
        "backbone": ["resnet18"],
        "labelled_fraction": [0.5, 1.0],
        "folds": 2,
        "seeds": [0],
        "baseline": {"pathway": "none"},
    },
}
"""A valid study on generated data: three pathways, two fractions, two folds."""


def base(changes: Mapping[str, object] | None = None, *, without: tuple[str, ...] = ()) -> Document:
    """Return the valid study with dotted paths set, then others removed."""
    document = with_paths(BASE, changes or {})
    for dotted in without:
        *parents, last = dotted.split(".")
        at: Any = document
        for step in parents:
            at = at[step]
        del at[last]
    return document


def write_study(document: Document, file: Path) -> Path:
    """Write a study file."""
    file.write_text(yaml.safe_dump(deepcopy(document), sort_keys=False), encoding="utf-8")
    return file


def compare(**changes: object) -> Document:
    """Return the valid study with keys of `compare` set; dots in a key are part of it."""
    return base({"compare": {**BASE["compare"], **changes}})


def planned(document: Document, cache: Path) -> Plan:
    """Plan a document."""
    return load_plan(document, file="study.yaml", cache=cache)


def by_stage(plan: Plan) -> dict[str, frozenset[str]]:
    """Return the digests of each stage name."""
    stages_by_name: dict[str, set[str]] = {}
    for digest, node in plan.nodes.items():
        stages_by_name.setdefault(node.step.stage, set()).add(digest)
    return {stage: frozenset(digests) for stage, digests in stages_by_name.items()}
