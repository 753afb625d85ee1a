import csv
from pathlib import Path

import numpy as np
import pytest

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Box, Index, Source
from datasets.sources import SiimCovid19Settings, open_source
from datasets.sources.siim_covid19 import FINDINGS
from tests.support.blobs import blob, bounds
from tests.support.pictures import truncate
from tests.support.siim_covid19 import image_id, write_siim_covid19


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_siim_covid19(tmp_path / "siim")


def open_data(root: Path, classes: tuple[str, ...] | None = None) -> tuple[Source, Index]:
    source = open_source(SiimCovid19Settings(root=root, classes=classes))
    return source, source.index(root / "cache")


def edit(root: Path, table: str, row: int, column: str, value: str) -> None:
    """Change one cell; rows are counted from 1, below the header."""
    path = root / f"train_{table}_level.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[row][rows[0].index(column)] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def file_of(root: Path, number: int) -> Path:
    (path,) = root.glob(f"*/*/*/{image_id(number)}.*")
    return path


def test_a_sound_set_has_no_findings(root: Path) -> None:
    assert check(open_data(root)[1]) == []


def test_boxes_are_those_of_the_blobs(root: Path) -> None:
    source, index = open_data(root)
    for number in (0, 1, 3, 4, 6, 7):
        (box,) = source.boxes(index.ids.index(image_id(number)))
        corners = (box.x, box.y, box.width, box.height)
        assert corners == pytest.approx(bounds(blob(number, width=64, height=64)[1]), abs=0.001)
        assert box.name == "Opacity"
    assert index.structures == ("Opacity",)


def test_several_boxes_of_an_image_are_read(root: Path) -> None:
    edit(root, "image", 1, "boxes", str([{"x": 1, "y": 2, "width": 3.5, "height": 4}] * 2))
    edit(root, "image", 1, "label", "opacity 1 1 2 4.5 6 opacity 1 1 2 4.5 6")
    source, index = open_data(root)
    boxes = source.boxes(index.ids.index(image_id(0)))
    assert boxes == (Box(name="Opacity", x=1, y=2, width=3.5, height=4),) * 2


def test_an_image_of_the_table_without_box_is_empty_and_a_test_image_is_not_annotated(root: Path) -> None:
    source, index = open_data(root)
    negative, test = index.ids.index(image_id(2)), index.ids.index(image_id(8))
    assert source.boxes(negative) == source.boxes(test) == ()
    assert index.annotation_digests["boxes"][negative]
    assert not index.annotation_digests["boxes"][test]


def test_labels_and_category_are_those_of_the_study(root: Path) -> None:
    source, index = open_data(root)
    rows = [index.ids.index(image_id(number)) for number in range(3)]
    assert index.labels == FINDINGS
    assert [source.labels(row).tolist() for row in rows] == [[0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert [index.categories[row] for row in rows] == [FINDINGS[2], FINDINGS[2], FINDINGS[0]]


def test_a_study_without_a_row_has_boxes_but_no_labels(root: Path) -> None:
    source, index = open_data(root)
    row = index.ids.index(image_id(7))
    assert np.isnan(source.labels(row)).all()
    assert (index.categories[row], bool(index.annotation_digests["boxes"][row])) == ("", True)


def test_a_training_image_without_a_row_has_no_boxes_but_the_labels_of_its_study(root: Path) -> None:
    path = root / "train_image_level.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2] + path.read_text().splitlines(True)[3:]))
    source, index = open_data(root)
    row = index.ids.index(image_id(1))
    assert index.annotation_digests["boxes"][row] == ""
    assert source.labels(row).tolist() == [0, 0, 1, 0]


def test_patients_are_read_from_the_dicom_files_and_the_split_from_the_folders(root: Path) -> None:
    index = open_data(root)[1]
    patients = {
        name: (patient, part) for name, patient, part in zip(index.ids, index.patients, index.official, strict=True)
    }
    assert patients[image_id(0)] == patients[image_id(2)] == ("siim_covid19/patient0", "train")
    assert patients[image_id(9)] == ("siim_covid19/patient3", "test")


def test_monochrome1_is_as_bright_as_monochrome2(root: Path) -> None:
    source, index = open_data(root)
    for number in (0, 1):
        mask = blob(number, width=64, height=64)[1] > 0
        image = source.image(index.ids.index(image_id(number)))
        assert image[mask].mean() > image[~mask].mean() + 50


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_converted_images_are_grouped_by_study(tmp_path: Path, suffix: str) -> None:
    root = write_siim_covid19(tmp_path / "siim", suffix=suffix)  # type: ignore[arg-type]
    source, index = open_data(root)
    assert check(index) == []
    assert index.patients[0] == index.patients[1] == f"siim_covid19/{0xABC + 1:012x}"
    assert index.patients[2] == f"siim_covid19/{0xABC + 2:012x}"
    assert [len(source.boxes(row)) for row in range(10)] == [1, 1, 0, 1, 1, 0, 1, 1, 0, 0]


def test_a_conversion_beside_its_dicom_file_is_not_a_second_image(root: Path) -> None:
    path = file_of(root, 0)
    path.with_suffix(".png").write_bytes(b"never read as an image of its own")
    index = open_data(root)[1]
    assert (len(index), any(index.faults)) == (10, False)


def test_a_box_outside_the_image_is_a_fault_of_its_row(root: Path) -> None:
    edit(root, "image", 1, "boxes", "[{'x': 60, 'y': 1, 'width': 6, 'height': 5}]")
    (finding,) = check(open_data(root)[1])
    assert (finding.severity, finding.ids) == ("error", (image_id(0),))
    assert "box Opacity (60, 1, 6, 5) leaves the image; allowed: inside 64 x 64" in finding.message


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("image", "label", "none 1 0 0 1 1", "line 2: 1 boxes, but 0 opacities in label; allowed: the same"),
        ("image", "label", "opacity 1 2 3", "line 2: 1 boxes, but 1 opacities in label"),
        ("image", "boxes", "", "line 2: 0 boxes, but 1 opacities in label"),
        ("image", "boxes", "[{'x': 1}]", r"line 2: boxes are '\[{'x': 1}\]' \(Field required\); allowed"),
        ("image", "boxes", "[{'x': 1", "line 2: boxes are .*; allowed: a list of"),
        ("image", "StudyInstanceUID", "abc", "line 2: StudyInstanceUID is 'abc'; allowed: 000000000abd, where"),
        ("image", "id", f"{1:012x}_image", "line 3: 000000000001_image is listed twice; allowed: one line"),
        ("image", "id", "000000000000", "line 2: id is '000000000000'; allowed: NAME_image"),
        ("image", "id", "gone_image", r"level\.csv names 1 images that are not there \(gone\)"),
        ("study", FINDINGS[1], "2", "line 2: Typical Appearance is '2'; allowed: 1"),
        ("study", FINDINGS[1], "1", "line 2: 2 findings are 1"),
        ("study", FINDINGS[2], "0", r"line 2: 0 findings are 1 \(\[\]\); allowed: one of"),
    ],
)
def test_a_contradiction_is_refused_in_one_line(root: Path, table: str, column: str, value: str, reason: str) -> None:
    edit(root, table, 1, column, value)
    with pytest.raises(DataError, match=reason) as refused:
        open_data(root)
    assert "\n" not in str(refused.value)


def test_a_missing_column_is_refused(root: Path) -> None:
    edit(root, "study", 0, FINDINGS[3], "Atypical")
    with pytest.raises(DataError, match=r"study_level\.csv lacks the columns \['Atypical Appearance'\]"):
        open_data(root)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_damaged_dicom_file_is_a_fault_of_its_row(root: Path) -> None:
    truncate(file_of(root, 3))
    index = open_data(root)[1]
    assert [name for name, fault in zip(index.ids, index.faults, strict=True) if fault] == [image_id(3)]


def test_only_opacity_can_be_chosen_as_a_class(root: Path) -> None:
    assert open_data(root, ("Opacity",))[1].structures == ("Opacity",)
    with pytest.raises(DataError, match=r"classes: \['Lung'\] not in .*; allowed: \['Opacity'\]"):
        open_data(root, ("Lung",))
