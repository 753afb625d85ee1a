"""The studies of the catalog, shortened: generated data in the published layouts, and the keys set for a short run."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.ccxs import write_many_ccxs
from tests.support.chexpert import write_chexpert
from tests.support.classes_folder import write_classes_folder
from tests.support.covid_lung_boxes import write_covid_lung_boxes
from tests.support.idrid import write_idrid
from tests.support.siim_acr import write_siim_acr
from tests.support.siim_covid19 import write_siim_covid19

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "study" / "catalog"
REAL = (ROOT / os.environ.get("STUDY_REAL_DATA", "../shared/data")).resolve()

Changes = Sequence[str]
Maker = Callable[[Path], Changes]
"""Writes data below a folder and returns the `KEY=VALUE` pairs of a short run."""


def _demo(_: Path) -> Changes:
    stages = ("stages.classify.epochs=1", "stages.boxes.epochs=1", "stages.segment.steps=2")
    return (*stages, "compare.labelled_fraction=[1.0]", "compare.folds=2")


def _search_demo(_: Path) -> Changes:
    stages = ("stages.classify.epochs=1", "stages.boxes.epochs=1", "stages.segment.steps=8")
    return (*stages, "compare.labelled_fraction=[1.0]", "compare.folds=2", "search.trials=3")


def _ccxs(_: Path) -> Changes:
    if not (REAL / "ccxs").is_dir():
        pytest.skip(f"no real images at {REAL}; set STUDY_REAL_DATA")
    return (
        "stages.classify.epochs=1", "stages.encode.epochs=1", "stages.lungs.epochs=1", "stages.segment.steps=2",
        "compare.labelled_fraction=[1.0]", "compare.folds=2", "compare.seeds=[0]",
        f"data.ccxs.root={REAL / 'ccxs'}", f"data.boxes.root={REAL / 'gb-lung-boxes'}",
    )  # fmt: skip


def _two_step_pretraining(folder: Path) -> Changes:
    return (
        f"data.chexpert.root={write_chexpert(folder / 'chexpert', images=24)}",
        f"data.sfrc.root={write_siim_covid19(folder / 'sfrc', images=16)}",
        f"data.ccxs.root={write_many_ccxs(folder / 'ccxs', images=14)}",
        "data.ccxs.split.test.images=3", "compare.folds=2", "image.size=32",
        "compare.backbone=[resnet18, vgg11]", "compare.initial_weights=[random]", "compare.seeds=[0]",
        "stages.classify.epochs=1", "stages.encode.epochs=1", "stages.boxes.epochs=1", "stages.segment.steps=2",
    )  # fmt: skip


def _two_stage_pneumothorax(folder: Path) -> Changes:
    large = [f"stages.{name}.image.size=64" for name in ("large_10", "large_29", "large_70")]
    names = ("experiment_1", "small_35", "small_60", "small_100", "large_10", "large_29", "large_70")
    lengths = [f"stages.{name}.epochs={2 + place % 3}" for place, name in enumerate(names)]
    return (
        f"data.siim.root={write_siim_acr(folder, images=16)}", *large, *lengths, "image.size=32", "evaluate.size=64",
        *(f"stages.{name}.batch_size=4" for name in names), "compare.backbone=[resnet18]",
        "compare.initial_weights=[random]", "compare.folds=2", "validation.min_cases=1",
    )  # fmt: skip


def _localise_then_segment(folder: Path) -> Changes:
    root = write_idrid(folder, images=16)
    return (
        f"data.centres.root={root}", f"data.discs.root={root}", "leaks=report", "image.size=32",
        "compare.labelled_fraction=[0.5, 1.0]", "compare.folds=2", "compare.seeds=[0]",
        "stages.locate.epochs=2", "stages.segment.steps=4",
    )  # fmt: skip


def _adversarial(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("Glomeruli", "Podocyte", "Non-Podocyte"), images=20)
    (root / "test.txt").write_text("".join(f"{number:03d}\n" for number in range(4)))
    (root / "validation.txt").write_text("".join(f"{number:03d}\n" for number in range(4, 8)))
    names = ("supervised", "fully_convolutional", "patchgan_16", "patchgan_70", "patchgan_256", "self_training")
    return (
        f"data.images.root={root}", f"data.images.split.test.list={root / 'test.txt'}",
        f"data.images.split.validation.list={root / 'validation.txt'}", "image.size=192",
        *(f"stages.{name}.steps=3" for name in names), *(f"stages.{name}.batch_size=2" for name in names),
        *(f"stages.{name}.adversarial.unlabelled_start=1" for name in names[1:-1]),
        "stages.self_training.adversarial.semi_start=1", "compare.labelled_fraction=[0.5]", "compare.seeds=[0, 1]",
        "compare.initial_weights=[random]", "compare.backbone=[resnet18]", "validation.min_cases=1",
    )  # fmt: skip


def _xnet_bone(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("soft tissue", "bone"), images=16)
    return (
        f"data.bones.root={root}", "image.size=32", "compare.folds=2", "stages.segment.epochs=2",
        "stages.segment.batch_size=4", "stages.segment.balance.images=8", "validation.min_cases=1",
    )  # fmt: skip


_OF_SEMI_SUPERVISED = ("supervised", "adversarial", "mean_teacher", "fixmatch", "unimatch", "cross_pseudo")
_OF_SELF_TRAINING = ("supervised", "hard", "confident", "soft", "ensemble", "again")
_OF_SELF_SUPERVISED = ("encode", "mask", "contrast", "distil")
_OF_ATLAS = ("encode", "denoise", "mask", "inpaint", "contrast", "byol", "distil", "classify", "lungs")
_SHORT = (
    "image.size=32", "compare.backbone=[resnet18]", "compare.initial_weights=[random]", "compare.folds=2",
    "compare.seeds=[0]", "compare.labelled_fraction=[1.0]", "validation.min_cases=1", "stages.segment.steps=2",
    "stages.segment.batch_size=4",
)  # fmt: skip


def _probe_encoders(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("disc",), images=12)
    encoders = ("compare.baseline={backbone: resnet18}", "compare.include=[{backbone: tu-test_vit}]")
    return (f"data.mine.root={root}", *_SHORT, *encoders)


def _semi_supervised(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("disc",), images=20)
    return (
        f"data.mine.root={root}", "image.size=64", "compare.backbone=[resnet18]", "compare.initial_weights=[random]",
        "compare.folds=2", "compare.seeds=[0]", "compare.labelled_fraction=[0.5]", "validation.min_cases=1",
        *(f"stages.{name}.{key}" for name in _OF_SEMI_SUPERVISED for key in ("steps=3", "batch_size=2")),
        "stages.adversarial.adversarial.semi_start=1",
    )  # fmt: skip


def _self_training(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("disc",), images=20)
    return (
        f"data.mine.root={root}", "image.size=64", "compare.backbone=[resnet18]", "compare.initial_weights=[random]",
        "compare.folds=2", "compare.seeds=[0]", "compare.labelled_fraction=[0.5]", "validation.min_cases=1",
        *(f"stages.{name}.{key}" for name in _OF_SELF_TRAINING for key in ("steps=3", "batch_size=2")),
    )  # fmt: skip


def _weak_labels(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("disc",), images=20)
    return (f"data.mine.root={root}", *_SHORT, "image.size=64", "compare.labelled_fraction=[0.5]")


def _annotation_budget(folder: Path) -> Changes:
    """Return two fractions, and a budget that all arms reach between them."""
    return (*_weak_labels(folder)[:-1], "compare.labelled_fraction=[0.25, 1.0]", "compare.hours=[1]")


def _self_supervised(folder: Path) -> Changes:
    root = write_classes_folder(folder, classes=("disc",), images=12)
    lengths = [f"stages.{name}.{key}" for name in _OF_SELF_SUPERVISED for key in ("epochs=1", "batch_size=4")]
    return (f"data.mine.root={root}", *_SHORT, *lengths)


def _pretraining_atlas(folder: Path) -> Changes:
    lengths = [f"stages.{name}.{key}" for name in _OF_ATLAS for key in ("epochs=1", "batch_size=4")]
    return (
        f"data.ccxs.root={write_many_ccxs(folder / 'ccxs', images=14)}",
        f"data.boxes.root={write_covid_lung_boxes(folder / 'boxes')}", *_SHORT, *lengths, "image.size=64",
        "stages.distil.teacher={backbone: tu-test_vit, initial_weights: random, size: 64}",
    )  # fmt: skip


PRESETS: dict[str, Maker] = {
    "demo": _demo,
    "search_demo": _search_demo,
    "ccxs_two_step_small": _ccxs,
    "two_step_pretraining": _two_step_pretraining,
    "two_stage_pneumothorax": _two_stage_pneumothorax,
    "localise_then_segment": _localise_then_segment,
    "adversarial_semi_supervised": _adversarial,
    "xnet_bone": _xnet_bone,
    "probe_encoders": _probe_encoders,
    "semi_supervised": _semi_supervised,
    "self_training": _self_training,
    "weak_labels": _weak_labels,
    "annotation_budget": _annotation_budget,
    "self_supervised": _self_supervised,
    "pretraining_atlas": _pretraining_atlas,
}
