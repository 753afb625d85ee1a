"""The designs of the catalog's studies, on generated data."""

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
"""What is left out of a study of the catalog: all pairs of 84 arms on a fixed test set take minutes a study."""


def names() -> list[str]:
    """Return the studies of the catalog."""
    return sorted(path.stem for path in CATALOG.glob("*.yaml"))


def simulated(name: str) -> Simulated:
    """Return a study of the catalog with equal arms and pretraining runs that differ by one SD of replicates.

    With a fixed test set: under the null of rule 3.
    """
    document = catalog_document(name)
    effects = Effects(run_sd=run_sd(document["compare"].get("folds", 5), IMAGES, STEADY, 1.0))
    return Simulated(name=name, document=document, learner=STEADY, effects=effects, swapped=is_fixed(document))


def is_fixed(document: Document) -> bool:
    """Return whether a study has a fixed test set."""
    return any(settings.get("split", {}).get("test", "folds") != "folds" for settings in document["data"].values())


def catalog_document(name: str) -> Document:
    """Return a study of the catalog on generated data: its pathways, split and comparison are the file's.

    The target has `IMAGES` images of as many patients; other data are not drawn. A list of test images becomes a share
    of them; losses and classes become such that fit generated data.
    """
    found: Document = deepcopy(dict(read_document(CATALOG / f"{name}.yaml")))
    for key in ("published", "metrics"):
        found.pop(key, None)
    target = found["stages"][_last(next(iter(found["pathways"].values())))]["data"]
    found["data"] = {
        key: _phantom(settings, IMAGES if key == target else OTHER_IMAGES) for key, settings in found["data"].items()
    }
    for settings in found["stages"].values():
        settings.pop("class_threshold", None)
        if "structure" in settings:
            settings["structure"] = "heart"
        if "cross_entropy" in settings.get("loss", {}):  # classes of generated images overlap
            settings["loss"] = {"binary_cross_entropy": 1.0}
    found["compare"] |= SHORTENED.get(name, {})
    return found


def _last(links: Sequence[Any]) -> str:
    return str(links[-1] if isinstance(links[-1], str) else links[-1]["stage"])


def _phantom(settings: Document, images: int) -> Document:
    phantom = {"source": "phantom", "images": images, "patients": images, "size": 64}
    split = deepcopy(settings.get("split"))
    if split and "list" in str(split.get("test")):
        split = {"test": {"share": 0.1}}
    return phantom | ({"split": split} if split else {})
