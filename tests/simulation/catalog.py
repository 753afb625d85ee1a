"""Designs of the catalog studies on generated data."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from study.config.document import read_document
from tests.simulation.effects import run_sd
from tests.simulation.studies import Effects, Simulated
from tests.simulation.worlds import STEADY
from tests.support.documents import Document

CATALOG = Path(__file__).parents[2] / "study" / "catalog"
IMAGES, OTHER_IMAGES = 100, 20
SHORTENED: dict[str, Document] = {
    "two_step_pretraining": {
        "architecture": ["unet"], "backbone": ["vgg16"], "initial_weights": ["random"], "exclude": []
    },
}  # fmt: skip
"""Overrides that shorten a study: comparing all pairs of 84 arms on a fixed test set takes minutes per study."""


def names() -> list[str]:
    """Return the names of the catalog studies."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def simulated(name: str) -> Simulated:
    """Return a catalog study with equal arms and pretraining runs that differ by one SD of replicates.

    With a fixed test set, outputs are permuted between arms, the null hypothesis of tests over patients.
    """
    document = catalog_document(name)
    effects = Effects(run_sd=run_sd(document["compare"].get("folds", 5), IMAGES, STEADY, 1.0))
    return Simulated(name=name, document=document, learner=STEADY, effects=effects, swapped=is_fixed(document))


def is_fixed(document: Document) -> bool:
    """Return whether a study has a fixed test set."""
    return any(settings.get("split", {}).get("test", "folds") != "folds" for settings in document["data"].values())


def catalog_document(name: str) -> Document:
    """Return a catalog study on generated data, with the pathways, split and comparison of the file.

    The target has `IMAGES` images of different patients; the other data sets are not simulated. A list of test images
    is replaced by a share; losses and classes are replaced by those that fit generated data.
    """
    document: Document = deepcopy(dict(read_document(CATALOG / f"{name}.yaml")))
    for key in ("published", "metrics"):
        document.pop(key, None)
    target = document["stages"][_last_stage(next(iter(document["pathways"].values())))]["data"]
    document["data"] = {
        key: _phantom(settings, IMAGES if key == target else OTHER_IMAGES) for key, settings in document["data"].items()
    }
    for settings in document["stages"].values():
        settings.pop("class_threshold", None)
        if "structure" in settings:
            settings["structure"] = "heart"
        if "cross_entropy" in settings.get("loss", {}):  # classes of generated images overlap
            settings["loss"] = {"binary_cross_entropy": 1.0}
    document["compare"] |= SHORTENED.get(name, {})
    return document


def _last_stage(links: Sequence[Any]) -> str:
    return str(links[-1] if isinstance(links[-1], str) else links[-1]["stage"])


def _phantom(settings: Document, images: int) -> Document:
    phantom: Document = {"source": "phantom", "images": images, "patients": images, "size": 64}
    if "annotation_minutes" in settings:
        phantom["annotation_minutes"] = settings["annotation_minutes"]
    split = deepcopy(settings.get("split"))
    if split and "list" in str(split.get("test")):
        split = {"test": {"share": 0.1}}
    return phantom | ({"split": split} if split else {})
