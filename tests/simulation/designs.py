"""Study documents for simulation."""

from collections.abc import Sequence
from typing import Literal

from tests.support.documents import Document

Pretraining = Literal["none", "shared", "own seed", "per fold", "own labels"]


def document(
    *, folds: int, seeds: int = 1, arms: int = 2, images: int = 60, images_per_patient: int = 2,
    labelled: Sequence[float] = (1.0,), pretraining: Pretraining = "none", split: Document | None = None,
    rope: float | None = None, pretrained: Sequence[int] | None = None, minutes: Document | None = None,
    hours: Sequence[float] = (),
) -> Document:  # fmt: skip
    """Return a study of arms that differ only in the length of training, which the simulation ignores.

    The first arm, `a0`, is the baseline. Each arm with pretraining has its own pretraining stage.

    Args:
        pretrained: Numbers of the arms with pretraining; default: all arms.
        minutes: `annotation_minutes` of the target.
        hours: `compare.hours`.
    """
    hospital = {"source": "phantom", "images": images, "patients": images // images_per_patient, "size": 64}
    hospital |= {"annotation_minutes": minutes} if minutes else {}
    names = [str(number) for number in range(arms)]
    stages: Document = {
        f"segment_{name}": {"task": "segmentation", "data": "hospital", "epochs": position + 1}
        for position, name in enumerate(names)
    }
    pretraining_stage: Document = {
        "per fold": {"task": "reconstruction", "data": "hospital"},
        "own labels": {"task": "classification", "data": "hospital"},
    }.get(pretraining, {"task": "classification", "data": "clinic"})
    if pretraining == "own seed":
        pretraining_stage = {**pretraining_stage, "seed": 0}
    pretrained_arms = () if pretraining == "none" else (pretrained or range(arms))
    stages |= {
        f"pretrain_{name}": {**pretraining_stage, "epochs": position + 1}
        for position, name in enumerate(names)
        if position in pretrained_arms
    }
    data = {"hospital": hospital | ({"split": split} if split else {})}
    if pretraining in ("shared", "own seed"):
        data["clinic"] = {"source": "phantom", "images": 20, "patients": 10, "size": 64}
    compare: Document = {
        "architecture": ["unet"], "backbone": ["resnet18"], "labelled_fraction": list(labelled), "folds": folds,
        "seeds": list(range(seeds)), "baseline": {"pathway": "a0"},
    }  # fmt: skip
    return {
        "name": "simulated", "data": data, "image": {"size": 64}, "stages": stages,
        "pathways": {
            f"a{name}": [f"pretrain_{name}"] * (position in pretrained_arms) + [f"segment_{name}"]
            for position, name in enumerate(names)
        },
        "compare": compare | ({"rope": rope} if rope is not None else {}) | ({"hours": list(hours)} if hours else {}),
    }  # fmt: skip


def fixed_split(images: int, *, by_folds: bool = True) -> Document:
    """Return a split with a fixed test set, validated by folds or by the default share."""
    return {"test": {"images": images}} | ({"validation": "folds"} if by_folds else {})
