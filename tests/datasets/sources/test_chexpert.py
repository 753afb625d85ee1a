"""CheXpert: uncertain and blank labels, views, two tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import ChexpertSettings, open_source
from datasets.sources.chexpert import LABELS
from tests.support.chexpert import RELEASE, SHOWN, write_chexpert


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_chexpert(tmp_path / "chexpert")


def open_data(root: Path, **settings: Any) -> tuple[Source, Index]:  # noqa: ANN401 - as in a study file
    source = open_source(ChexpertSettings(root=root, **settings))
    return source, source.index(root.parent / "cache")


def label(source: Source, row: int, name: str) -> float:
    return float(source.labels(row)[LABELS.index(name)])


def test_images_are_read_from_any_folder_name_of_the_release(root: Path) -> None:
    table = root / "train.csv"
    table.write_text(table.read_text().replace(f"{RELEASE}/", "CheXpert-v1.0/"))
    _, index = open_data(root)
    assert len(index) == 12
    assert index.ids[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert not any(index.faults)


def test_tables_are_the_publishers_split_and_views_are_categories(root: Path) -> None:
    _, index = open_data(root)
    assert list(index.official) == ["train"] * 10 + ["validation"] * 2
    assert list(index.categories) == ["frontal", "lateral"] * 6


def test_views_of_one_patient_share_the_patient(root: Path) -> None:
    _, index = open_data(root)
    assert index.patients[0] == index.patients[1] == "chexpert/patient00001"
    assert len(set(index.patients)) == 6


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", np.nan), ("zeros", 0), ("ones", 1)])
def test_an_uncertain_label_is_interpreted_as_configured(root: Path, uncertain: str, value: float) -> None:
    source, _ = open_data(root, uncertain=uncertain)
    assert np.array_equal(label(source, 0, "Lung Opacity"), value, equal_nan=True)


@pytest.mark.parametrize(("blank", "value"), [("ignore", np.nan), ("zeros", 0)])
def test_an_unmentioned_label_is_interpreted_as_configured(root: Path, blank: str, value: float) -> None:
    source, _ = open_data(root, blank=blank)
    assert np.array_equal(label(source, 0, "Fracture"), value, equal_nan=True)


def test_uncertain_labels_are_ignored_and_blank_ones_absent_by_default(root: Path) -> None:
    source, _ = open_data(root)
    assert np.isnan(label(source, 0, "Lung Opacity"))
    assert label(source, 0, "Fracture") == 0


@pytest.mark.parametrize("change", [{"uncertain": "zeros"}, {"uncertain": "ones"}, {"blank": "ignore"}])
def test_the_interpretation_of_labels_changes_the_digest_of_rows_that_have_them(
    root: Path, change: dict[str, str]
) -> None:
    before, after = open_data(root)[1], open_data(root, **change)[1]
    moved = [
        a != b for a, b in zip(before.annotation_digests["labels"], after.annotation_digests["labels"], strict=True)
    ]
    assert moved == [split == "train" for split in before.official]  # validation has neither blank nor uncertain labels


def test_digests_are_unchanged_where_the_chosen_labels_are_neither_blank_nor_uncertain(root: Path) -> None:
    before = open_data(root, labels=SHOWN)[1]
    after = open_data(root, labels=SHOWN, uncertain="ones", blank="ignore")[1]
    assert before.annotation_digests == after.annotation_digests


@pytest.mark.parametrize(("views", "images"), [("frontal", 6), ("lateral", 6), ("all", 12)])
def test_views_can_be_selected(root: Path, views: str, images: int) -> None:
    _, index = open_data(root, views=views)
    assert len(index) == images
    assert views == "all" or set(index.categories) == {views}


def test_an_invalid_label_is_refused_with_its_line(root: Path) -> None:
    table = root / "train.csv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("-1.0", "2")
    table.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"train\.csv line 4: Lung Opacity is '2'; allowed: 1\.0 .*; correct"):
        open_data(root)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("Frontal/Lateral", "View", r"lacks the columns \['Frontal/Lateral'\]"),
        ("Frontal,", "Oblique,", r"line 2: Frontal/Lateral is 'Oblique'"),
        ("small/train/patient00001/", "", r"line 2: Path is 'CheXpert-v1\.0-study1/view1_frontal\.jpg'"),
    ],
)
def test_a_malformed_table_is_refused(root: Path, before: str, after: str, message: str) -> None:
    table = root / "train.csv"
    table.write_text(table.read_text().replace(before, after))
    with pytest.raises(DataError, match=message):
        open_data(root)


def test_missing_images_are_refused_with_their_number_and_the_first(root: Path) -> None:
    for path in sorted((root / "train").glob("*/*/view2*"))[1:3]:
        path.unlink()
    with pytest.raises(DataError, match=r"names 2 images that are not there \(train/patient00002/study1/view2"):
        open_data(root)
    assert len(open_data(root, views="frontal")[1]) == 6
