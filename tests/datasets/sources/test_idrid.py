"""IDRiD: three parts, two sets that are both numbered from 1, tables with empty ends."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import IdridSettings, open_source
from datasets.sources.idrid import CENTRE_TABLES, CLASSES, FOLDERS, GRADE_TABLES, IMAGES, LABELS, MASKS, SETS
from tests.support.idrid import write_idrid

DISC = Path(FOLDERS["segmentation"], MASKS, SETS["train"], "5. Optic Disc")
GRADES = Path(FOLDERS["grading"], GRADE_TABLES["train"])
DISC_CENTRES = Path(FOLDERS["localisation"], CENTRE_TABLES["train"]["Optic Disc"])

REAL = Path(__file__).parents[3] / os.environ.get("STUDY_REAL_DATA", "../shared/data") / "idrid"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_idrid(tmp_path / "idrid")


def open_data(root: Path, part: str, **settings: Any) -> tuple[Source, Index]:  # noqa: ANN401 - as in a study file
    source = open_source(IdridSettings.model_validate({"root": root, "part": part, **settings}))
    return source, source.index(root.parent / "cache")


@pytest.mark.parametrize("part", FOLDERS)
def test_folders_are_the_publishers_split_and_have_different_ids(root: Path, part: str) -> None:
    _, index = open_data(root, part)
    assert [(name.split("/")[0], official) for name, official in zip(index.ids, index.official, strict=True)] == [
        *[("test", "test")] * 2,
        *[("train", "train")] * 6,
    ]
    assert len(set(index.patients)) == 8
    assert not any(index.faults)


@pytest.mark.parametrize(
    ("part", "annotation_kind"), [("segmentation", "masks"), ("grading", "labels"), ("localisation", "centres")]
)
def test_a_part_has_only_its_own_annotations(root: Path, part: str, annotation_kind: str) -> None:
    _, index = open_data(root, part)
    assert {kind for kind, digests in index.annotation_digests.items() if any(digests)} == {annotation_kind}
    assert all(index.annotation_digests[annotation_kind])  # type: ignore[index]


def test_the_part_is_required(root: Path) -> None:
    with pytest.raises(ValueError, match="part"):
        IdridSettings.model_validate({"root": root})


def test_masks_are_the_nonzero_palette_entries_of_the_file_of_their_class(root: Path) -> None:
    from PIL import Image

    source, index = open_data(root, "segmentation")
    assert index.classes == tuple(CLASSES)
    for name in ("Optic Disc", "Haemorrhages"):
        folder, ending = CLASSES[name]
        with Image.open(root / DISC.parent / folder / f"IDRiD_02_{ending}.tif") as file:
            expected = np.asarray(file) == 76
        assert np.array_equal(source.masks(index.ids.index("train/IDRiD_02"))[index.classes.index(name)], expected)


def test_a_lesion_without_file_is_absent(root: Path) -> None:
    source, index = open_data(root, "segmentation")
    present = [source.masks(row)[index.classes.index("Soft Exudates")].any() for row in range(len(index))]
    assert present == [int(name[-2:]) % 2 == 0 for name in index.ids]


def test_an_image_without_mask_files_is_labelled_as_empty_if_its_set_has_masks(root: Path) -> None:
    for name in CLASSES:
        if name != "Soft Exudates":
            for path in (root / FOLDERS["segmentation"] / MASKS).glob(f"*/{CLASSES[name][0]}/*"):
                path.unlink()
    source, index = open_data(root, "segmentation")
    assert all(index.annotation_digests["masks"])
    assert [bool(source.masks(row).any()) for row in range(8)] == [int(name[-2:]) % 2 == 0 for name in index.ids]


def test_classes_without_any_file_are_not_listed(root: Path) -> None:
    for name in ("Microaneurysms", "Hard Exudates", "Soft Exudates"):
        for path in (root / FOLDERS["segmentation"] / MASKS).glob(f"*/{CLASSES[name][0]}/*"):
            path.unlink()
    assert open_data(root, "segmentation")[1].classes == ("Haemorrhages", "Optic Disc")


def test_a_class_of_one_set_alone_is_refused_unless_it_is_excluded(root: Path) -> None:
    for path in (root / DISC).iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"a\. Training Set has no masks of \['Optic Disc'\]"):
        open_data(root, "segmentation")
    assert all(open_data(root, "segmentation", classes=("Haemorrhages",))[1].annotation_digests["masks"])


def test_a_set_without_any_mask_is_unlabelled(root: Path) -> None:
    for path in (root / FOLDERS["segmentation"] / MASKS / SETS["test"]).glob("*/*"):
        path.unlink()
    _, index = open_data(root, "segmentation")
    assert [bool(masks) for masks in index.annotation_digests["masks"]] == [
        official == "train" for official in index.official
    ]


@pytest.mark.parametrize(
    ("line", "labels"), [("0,0", "000000"), ("1,2", "100011"), ("3,1", "111010"), ("4,0", "111100")]
)
def test_a_grade_implies_every_label_up_to_it(root: Path, line: str, labels: str) -> None:
    table = root / GRADES
    lines = table.read_text().splitlines()
    lines[1] = f"IDRiD_001,{line}"
    table.write_text("\n".join(lines))
    source, index = open_data(root, "grading")
    row = index.ids.index("train/IDRiD_001")
    assert source.labels(row).tolist() == [float(digit) for digit in labels]
    assert index.categories[row] == f"retinopathy {line[0]}"
    assert index.labels == LABELS


def test_an_image_without_line_has_no_labels_and_a_line_without_image_is_ignored(root: Path) -> None:
    table = root / GRADES
    table.write_text(table.read_text().replace("IDRiD_001,", "IDRiD_400,"))
    _, index = open_data(root, "grading")
    assert len(index) == 8
    assert index.annotation_digests["labels"][index.ids.index("train/IDRiD_001")] == ""


def test_a_set_without_images_needs_no_table(root: Path) -> None:
    for path in (root / FOLDERS["grading"] / IMAGES / SETS["train"]).iterdir():
        path.unlink()
    (root / GRADES).unlink()
    assert open_data(root, "grading")[1].ids == ["test/IDRiD_001", "test/IDRiD_002"]


def test_a_set_with_images_needs_its_table(root: Path) -> None:
    (root / GRADES).unlink()
    with pytest.raises(DataError, match=r"Training Labels\.csv cannot be read"):
        open_data(root, "grading")


def test_centres_are_read_from_both_tables(root: Path) -> None:
    source, index = open_data(root, "localisation")
    row = index.ids.index("test/IDRiD_002")
    for structure, table in CENTRE_TABLES["test"].items():
        line = (root / FOLDERS["localisation"] / table).read_text().splitlines()[2]
        assert source.centres(row)[structure] == tuple(float(number) for number in line.split(",")[1:3])
    assert index.structures == ("Fovea", "Optic Disc")


@pytest.mark.parametrize(
    ("part", "table", "before", "after", "message"),
    [
        ("grading", GRADES, "IDRiD_001,", "IDRiD_001,1", r"line 2: Retinopathy grade is '1\d'; allowed: 0, 1, 2, 3, 4"),
        ("grading", GRADES, "IDRiD_003,", "IDRiD_002,", r"line 4: IDRiD_002 is listed twice"),
        ("grading", GRADES, "Retinopathy", "Retina", r"lacks the columns \['Retinopathy grade'\]"),
        ("localisation", DISC_CENTRES, "IDRiD_001,", "IDRiD_001,x", r"line 2: X- Coordinate is 'x\d+'; allowed: a num"),
    ],
)
def test_a_malformed_table_is_refused(
    root: Path, part: str, table: Path, before: str, after: str, message: str
) -> None:
    (root / table).write_text((root / table).read_text().replace(before, after))
    with pytest.raises(DataError, match=message):
        open_data(root, part)


def test_a_centre_outside_its_image_is_a_fault(root: Path) -> None:
    table = root / DISC_CENTRES
    table.write_text(table.read_text().replace("IDRiD_001,", "IDRiD_001,9"))
    faults = [finding.message for finding in check(open_data(root, "localisation")[1]) if finding.severity == "error"]
    assert len(faults) == 1
    assert "is outside; allowed: inside 64 x 64" in faults[0]


def link_some(root: Path) -> Path:
    """Link the real tables, some of the large photographs and their masks."""
    for path in REAL.rglob("*_*.*"):
        if path.suffix == ".csv" or path.stem.split("_")[1] in {"01", "03", "09", "010", "091"}:
            link = root / path.relative_to(REAL)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return root


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images at {REAL}; set STUDY_REAL_DATA")
def test_the_real_masks_and_centres_are_in_their_images(tmp_path: Path) -> None:
    root = link_some(tmp_path / "idrid")
    source, index = open_data(root, "segmentation", classes=["Optic Disc"])
    assert (index.ids, check(index)) == (["train/IDRiD_01", "train/IDRiD_03", "train/IDRiD_09"], [])
    mask = source.masks(2)[0]
    assert mask.shape == source.image(2).shape[:2] == (2848, 4288)
    assert 0.005 < mask.mean() < 0.05  # a disc covers about 2 % of the photograph
    source, index = open_data(root, "localisation")
    assert check(index) == []
    assert source.centres(index.ids.index("test/IDRiD_010"))["Optic Disc"] == (2948, 1655)
    assert len(open_data(root, "grading")[1]) == 0
