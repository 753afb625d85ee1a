"""Study documents for simulation."""

from collections.abc import Sequence
from typing import Literal

from tests.support.documents import Document

Pretraining = Literal["none", "shared", "own seed", "per fold"]


def document(
    *, folds: int, seeds: int = 1, arms: int = 2, images: int = 60, images_per_patient: int = 2,
    labelled: Sequence[float] = (1.0,), pretraining: Pretraining = "none", split: Document | None = None,
    rope: float | None = None,
) -> Document:  # fmt: skip
    """Return a study of arms that differ only in the length of training, which the simulation ignores.

    The first arm, `a0`, is the baseline. With pretraining, each arm has its own pretraining stage.
    """
    hospital = {"source": "phantom", "images": images, "patients": images // images_per_patient, "size": 64}
    names = [str(number) for number in range(arms)]
    stages: Document = {
        f"segment_{name}": {"task": "segmentation", "data": "hospital", "epochs": position + 1}
        for position, name in enumerate(names)
    }
    pretraining_stage: Document = {"per fold": {"task": "reconstruction", "data": "hospital"}}.get(
        pretraining, {"task": "classification", "data": "clinic"}
    )
    if pretraining == "own seed":
        pretraining_stage = {**pretraining_stage, "seed": 0}
    if pretraining != "none":
        stages |= {
            f"pretrain_{name}": {**pretraining_stage, "epochs": position + 1} for position, name in enumerate(names)
        }
    data = {"hospital": hospital | ({"split": split} if split else {})}
    if pretraining in ("shared", "own seed"):
        data["clinic"] = {"source": "phantom", "images": 20, "patients": 10, "size": 64}
    prefix = [] if pretraining == "none" else ["pretrain"]
    compare: Document = {
        "architecture": ["unet"], "backbone": ["resnet18"], "labelled_fraction": list(labelled), "folds": folds,
        "seeds": list(range(seeds)), "baseline": {"pathway": "a0"},
    }  # fmt: skip
    return {
        "name": "simulated", "data": data, "image": {"size": 64}, "stages": stages,
        "pathways": {f"a{name}": [f"{stage}_{name}" for stage in (*prefix, "segment")] for name in names},
        "compare": compare | ({"rope": rope} if rope is not None else {}),
    }  # fmt: skip


def fixed_split(images: int, *, by_folds: bool = True) -> Document:
    """Return a split with a fixed test set, validated by folds or by the default share."""
    return {"test": {"images": images}} | ({"validation": "folds"} if by_folds else {})
