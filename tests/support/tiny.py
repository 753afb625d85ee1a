"""A study of five stages that trains in seconds: two pathways, two folds, two phantom domains."""

from pathlib import Path
from typing import Any

import yaml

from study.config.document import with_paths
from study.planning.graph import Plan
from study.search.load import load_plan

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "clinic": {"source": "phantom", "images": 16, "patients": 8, "seed": 11, "style": "a", "size": 64},
        "hospital": {
            "source": "phantom", "images": 16, "patients": 8, "seed": 7, "style": "b", "size": 64,
            "split": {"validation": {"share": 0.3}},
        },
    },
    "validation": {"min_cases": 2},
    "image": {"size": 32},
    "stages": {
        "classify": {"task": "classification", "data": "clinic", "epochs": 16, "batch_size": 8},
        "segment": {"task": "segmentation", "data": "hospital", "steps": 24, "batch_size": 4},
    },
    "pathways": {"none": ["segment"], "one_step": ["classify", "segment"]},
    "compare": {
        "architecture": ["unet"],
        "backbone": ["tu-lcnet_050"],
        "labelled_fraction": [1.0],
        "folds": 2,
        "baseline": {"pathway": "none"},
    },
    "checkpoint": {"epochs": 1, "seconds": 0},
}  # fmt: skip


def tiny(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the document with dotted paths changed."""
    return with_paths(TINY, changes or {})


def planned(document: dict[str, Any], cache: Path) -> Plan:
    return load_plan(document, file="tiny.yaml", cache=cache)


def written(document: dict[str, Any], folder: Path) -> Path:
    """Write a document as a study file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{document['name']}.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return file
