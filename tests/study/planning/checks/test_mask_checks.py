"""Warnings and errors of `study plan` about masks without the classes that a study needs."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from study.errors import ConfigError
from study.planning.graph import Plan
from study.search.load import load_plan
from tests.support.documents import Document
from tests.support.pictures import picture, save


def write(
    root: Path, *, lesions: Iterable[int], images: int = 12, size: int = 64, same: tuple[int, int] | None = None
) -> Path:
    """Write images with an organ, some with a lesion; `same` is the number of a copy and of its original."""
    with_lesion = set(lesions)
    for number in range(images):
        organ, lesion = np.zeros((2, size, size), np.uint8)
        organ[10 : 30 + number, 20:40] = 255
        lesion[1:6, 1 : 4 + number] = 255
        pixels = picture(same[1] if same and number == same[0] else number, width=size, height=size)
        save(pixels, root / "images" / f"{number:02}.{'jpg' if same and number == same[0] else 'png'}")
        save(organ, root / "masks" / "organ" / f"{number:02}.png")
        save(lesion if number in with_lesion else lesion * 0, root / "masks" / "lesion" / f"{number:02}.png")
    return root


def document(root: Path, **parts: object) -> Document:
    return {
        "name": "masks", "data": {"mine": {"source": "folder", "root": str(root)}}, "image": {"size": 32},
        "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
        "pathways": {"none": ["segment"]},
        "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 3},
        "validation": {"min_cases": 1},
    } | parts  # fmt: skip


def plan(root: Path, **parts: object) -> Plan:
    return load_plan(document(root, **parts), file="masks.yaml", cache=root.parent / "cache")


def test_a_class_missing_in_some_folds_is_counted(tmp_path: Path) -> None:
    warnings = "\n".join(plan(write(tmp_path / "data", lesions=[4])).warnings)
    assert "2 of 3 replicates have no test images that show lesion" in warnings
    assert "2 of 3 replicates have no training images at labelled_fraction 1 that show lesion" in warnings
    assert "organ" not in warnings


def test_a_class_present_in_all_folds_is_not_mentioned(tmp_path: Path) -> None:
    assert plan(write(tmp_path / "data", lesions=range(12))).warnings == ()


def test_images_that_annotate_a_class_are_counted_if_some_do_not(tmp_path: Path) -> None:
    root = write(tmp_path / "data", lesions=[4])
    for number in range(6, 12):
        (root / "masks" / "lesion" / f"{number:02}.png").unlink()
    data: dict[str, object] = {"source": "folder", "root": str(root)}
    for missing, counts in (
        ("absent", "1 of 12 images show it"),
        ("not_annotated", "1 of 12 images show it, 6 annotate it"),
    ):
        warnings = "\n".join(plan(root, data={"mine": data | {"missing": missing}}).warnings)
        assert f"no test images that show lesion, and means over classes leave it out there ({counts})" in warnings


def test_a_class_that_disappears_in_all_images_is_refused_and_in_some_images_counted(tmp_path: Path) -> None:
    root = write(tmp_path / "data", lesions=range(12), size=512)
    with pytest.raises(ConfigError, match=r"masks of lesion vanish at 32 pixels in 12 of the 12 images that show it"):
        plan(root, image={"size": 32})
    warnings = "\n".join(plan(root, image={"size": 64}).warnings)
    assert "masks of lesion vanish at 64 pixels in 1 of the 12 images that show it (00)" in warnings


def test_a_reserve_whose_validation_images_lack_a_class_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", lesions=[])
    for mask in (root / "masks" / "organ").iterdir():
        save(np.zeros((64, 64), np.uint8), mask)
    save(np.eye(64, dtype=np.uint8), root / "masks" / "organ" / "00.png")
    search = {"trials": 2, "reserve": 0.4, "space": {"target.optimizer.lr": {"loguniform": [1e-4, 1e-2]}}}
    with pytest.raises(ConfigError, match=r"search\.reserve: is 0\.4: none of the \d+ images that judge"):
        plan(root, search=search)


def test_one_image_of_two_patients_is_refused_unless_leaks_are_reported(tmp_path: Path) -> None:
    root = write(tmp_path / "data", lesions=range(12), same=(7, 3))
    with pytest.raises(ConfigError, match=r"1 image repeats an image of another patient .*03 and 07"):
        plan(root)
    assert "repeats an image of another patient" in "\n".join(plan(root, leaks="report").warnings)
    cases = "".join(f"{number:02},{3 if number == 7 else number},\n" for number in range(12))
    (root / "cases.csv").write_text(f"image,patient,category\n{cases}")
    assert not any("same picture" in warning for warning in plan(root).warnings)
