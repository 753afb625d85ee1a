"""Masks of several annotators in the source `folder`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from datasets.checks.annotators import annotator_findings, shared_rows
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import DataSettings, FolderSettings, open_source
from datasets.sources.annotators import other_annotators, trained_annotator
from tests.support.pictures import picture, save

ANNOTATORS = {"first": "masks", "second": "masks_second"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images; the first annotator lacks the last one, the second annotator the first one."""
    for number in range(3):
        save(picture(number), tmp_path / "data" / "images" / f"{number}.png")
        for folder, left_out, id_ in (("masks", 2, 1), ("masks_second", 0, 2)):
            mask = np.zeros((48, 64), np.uint8)
            mask[5:20, 5 : 20 + number] = id_
            if number != left_out:
                save(mask, tmp_path / "data" / folder / f"{number}.png")
    return tmp_path / "data"


def open_data(root: Path, settings: DataSettings) -> tuple[Source, Index]:
    source = open_source(settings)
    return source, source.index(root.parent / "cache")


def test_annotators_have_the_same_images_and_different_masks(root: Path) -> None:
    settings = FolderSettings(root=root, annotators=ANNOTATORS)
    assert trained_annotator(settings) == "first"
    source, index = open_data(root, settings)
    others = other_annotators(settings)
    assert list(others) == ["second"]
    other_source, other = open_data(root, others["second"])
    assert other.ids == index.ids
    assert other.classes == index.classes == ("class_1", "class_2")
    assert [bool(text) for text in index.annotation_digests["masks"]] == [True, True, False]
    assert [bool(text) for text in other.annotation_digests["masks"]] == [False, True, True]
    assert shared_rows(index, other) == [1]
    assert (source.masks(1).max(), other_source.masks(1).max()) == (1, 2)
    assert other_annotators(FolderSettings(root=root)) == {}


def test_the_training_masks_do_not_depend_on_other_annotators(root: Path) -> None:
    (root / "classes.txt").write_text("a\nb\n")
    reverse = {"annotators": dict(reversed(ANNOTATORS.items())), "train": "first"}
    digests = [
        open_data(root, FolderSettings.model_validate({"root": root} | more))[1].annotation_digests["masks"]
        for more in ({}, {"annotators": ANNOTATORS}, reverse)
    ]
    assert digests[0] == digests[1] == digests[2]


def test_overlapping_classes_are_those_of_all_annotators(root: Path) -> None:
    for folder, name in (("a", "disc"), ("b", "cup")):
        save(np.eye(48, 64, dtype=np.uint8), root / folder / name / "0.png")
    settings = FolderSettings(root=root, annotators={"x": "a", "y": "b"})
    classes = [open_data(root, part)[1].classes for part in (settings, other_annotators(settings)["y"])]
    assert classes == [("cup", "disc")] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "first"}, "train is first; allowed: only with `annotators`"),
        ({"annotators": {"first": "masks"}}, "allowed: at least two, all different"),
        ({"annotators": {"a": "masks", "b": "masks"}}, "masks, masks; allowed: at least two, all different"),
        ({"annotators": {"a b": "masks", "c": "other"}}, "the name 'a b'; allowed: letters, digits"),
        ({"annotators": {"a": "masks", "b": "../other"}}, "annotators.b is '../other'; allowed: a folder beside"),
        ({"annotators": {"a": "masks", "b": "images"}}, "annotators.b is 'images'; allowed: a folder beside"),
        ({"annotators": ANNOTATORS, "train": "third"}, "train is third; allowed: first, second"),
    ],
)
def test_invalid_settings_are_refused(root: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FolderSettings.model_validate({"root": root} | settings)


def test_faults_name_the_annotator(root: Path) -> None:
    settings = FolderSettings(root=root, annotators=ANNOTATORS)
    save(np.ones((5, 5), np.uint8), root / "masks_second" / "1.png")
    (_, index), (_, other) = open_data(root, settings), open_data(root, other_annotators(settings)["second"])
    messages = [finding.message for finding in annotator_findings(index, "first", {"second": other})]
    assert messages[0].startswith("annotator second: masks_second/1.png has 5 x 5 pixels; allowed: 64 x 48")
    assert messages[1].startswith("annotators first and second annotated 0 images in common; allowed: at least one")
    missing = FolderSettings(root=root, annotators={"first": "masks", "second": "masks_2"})
    with pytest.raises(DataError, match="masks_2 is no folder; allowed: the masks of an annotator"):
        open_data(root, missing)
