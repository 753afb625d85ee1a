from pathlib import Path

import numpy as np
import pytest

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import SiimAcrSettings, open_source
from tests.support.blobs import blob
from tests.support.dicom import write_dicom
from tests.support.pictures import truncate
from tests.support.siim_acr import add_second_stage, image_id, second_stage_id, write_siim_acr

FIRST, TWICE, HEALTHY, UNKNOWN, TEST = (image_id(number) for number in (0, 1, 2, 7, 8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_siim_acr(tmp_path / "siim")


def open_data(root: Path) -> tuple[Source, Index]:
    source = open_source(SiimAcrSettings(root=root))
    return source, source.index(root / "cache")


def change(root: Path, old: str, new: str) -> None:
    table = root / "train-rle.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))


def file_of(root: Path, name: str) -> Path:
    (path,) = root.glob(f"*/*/*/{name}.dcm")
    return path


def test_a_sound_set_has_no_findings_although_masks_are_empty(root: Path) -> None:
    assert check(open_data(root)[1]) == []


def test_masks_are_the_blobs_of_the_images(root: Path) -> None:
    source, index = open_data(root)
    for number in (0, 1, 3, 4):
        expected = blob(number, width=64, height=64)[1]
        assert np.array_equal(source.masks(index.ids.index(image_id(number))), expected[None])


def test_several_rows_of_an_image_are_united(root: Path) -> None:
    assert (root / "train-rle.csv").read_text().count(TWICE) == 2
    source, index = open_data(root)
    row = index.ids.index(TWICE)
    assert source.masks(row).sum() == blob(1, width=64, height=64)[1].sum()


def test_minus_one_is_an_empty_mask(root: Path) -> None:
    source, index = open_data(root)
    row = index.ids.index(HEALTHY)
    assert index.annotation_digests["masks"][row]
    assert source.masks(row).shape == (1, 64, 64)
    assert not source.masks(row).any()
    assert (source.labels(row).tolist(), index.categories[row]) == ([0], "no pneumothorax")


def test_an_image_with_a_mask_is_labelled_positive(root: Path) -> None:
    source, index = open_data(root)
    row = index.ids.index(FIRST)
    assert (source.labels(row).tolist(), index.categories[row]) == ([1], "pneumothorax")
    assert (index.labels, index.classes, index.overlapping) == (("Pneumothorax",), ("Pneumothorax",), True)


@pytest.mark.parametrize("name", [UNKNOWN, TEST])
def test_images_without_a_row_have_neither_mask_nor_label(root: Path, name: str) -> None:
    source, index = open_data(root)
    row = index.ids.index(name)
    assert (index.annotation_digests["masks"][row], index.annotation_digests["labels"][row], index.categories[row]) == (
        "",
        "",
        "",
    )
    assert np.isnan(source.labels(row)).all()
    with pytest.raises(DataError, match="has no mask"):
        source.masks(row)


def test_the_publishers_split_follows_the_folders(root: Path) -> None:
    index = open_data(root)[1]
    official = dict(zip(index.ids, index.official, strict=True))
    assert [official[image_id(number)] for number in range(10)] == ["train"] * 8 + ["test"] * 2


def test_patients_are_read_from_the_dicom_files_and_default_to_the_image(root: Path) -> None:
    write_dicom(file_of(root, UNKNOWN), blob(7, width=64, height=64)[0], bits=8)
    index = open_data(root)[1]
    patients = dict(zip(index.ids, index.patients, strict=True))
    assert patients[FIRST] == patients[TWICE] == "siim_acr/patient-0"
    assert patients[UNKNOWN] == f"siim_acr/image {UNKNOWN}"


def test_a_changed_run_changes_only_the_masks_hash_of_its_image(root: Path) -> None:
    before = open_data(root)[1].annotation_digests["masks"]
    table = root / "train-rle.csv"
    lines = table.read_text().splitlines()
    assert lines[1].startswith(FIRST)
    start, _, rest = lines[1].split(", ")[1].partition(" ")
    lines[1] = f"{FIRST}, {int(start) + 1} {rest}"
    table.write_text("\n".join(lines))
    after, ids = open_data(root)[1].annotation_digests["masks"], open_data(root)[1].ids
    assert [a != b for a, b in zip(before, after, strict=True)] == [name == FIRST for name in ids]


def test_the_space_in_the_header_is_optional(root: Path) -> None:
    before = open_data(root)[1].annotation_digests
    change(root, "ImageId, EncodedPixels", "ImageId,EncodedPixels")
    assert open_data(root)[1].annotation_digests == before


def test_runs_beyond_the_end_of_the_image_are_a_fault_of_its_row(root: Path) -> None:
    change(root, f"{HEALTHY}, -1", f"{HEALTHY}, 4000 97")
    index = open_data(root)[1]
    (finding,) = check(index)
    assert (finding.severity, finding.ids) == ("error", (HEALTHY,))
    assert "mask of Pneumothorax runs past the end (to pixel 4097); allowed: up to 4096" in finding.message


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("1 2 3", r"line \d+: 3 run lengths; allowed: pairs"),
        ("1 x", r"line \d+: .*'x'; allowed: whole numbers"),
        ("1 -2", r"line \d+: a run length is -2; allowed: 0 or more"),
        ("", r"line \d+: EncodedPixels is empty; allowed: run lengths, or -1"),
        (f"-1\n{HEALTHY}, 5 6", r"line \d+: -1 for an image that has a mask too; allowed: -1 alone"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(root: Path, new: str, reason: str) -> None:
    change(root, f"{HEALTHY}, -1", f"{HEALTHY}, {new}")
    with pytest.raises(DataError, match=rf"train-rle\.csv {reason}"):
        open_data(root)


def test_rows_without_a_file_are_refused_with_their_number_and_the_first(root: Path) -> None:
    file_of(root, TWICE).unlink()
    file_of(root, HEALTHY).unlink()
    with pytest.raises(DataError, match=rf"train-rle\.csv names 2 images that are not there \({TWICE}\); allowed: all"):
        open_data(root)


def test_a_missing_column_is_refused(root: Path) -> None:
    change(root, " EncodedPixels", " Pixels")
    with pytest.raises(DataError, match=r"lacks the columns \['EncodedPixels'\]"):
        open_data(root)


def test_an_image_in_both_folders_is_refused(root: Path) -> None:
    file_of(root, TEST).rename(file_of(root, FIRST).with_name("x"))
    copy = root / "dicom-images-test" / "1.9" / "1.9" / f"{FIRST}.dcm"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file_of(root, FIRST).read_bytes())
    with pytest.raises(DataError, match=rf"1 ids stand for several images \({FIRST}\)"):
        open_data(root)


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_damaged_dicom_file_is_a_fault_of_its_row(root: Path) -> None:
    truncate(file_of(root, FIRST))
    index = open_data(root)[1]
    assert [name for name, fault in zip(index.ids, index.faults, strict=True) if fault] == [FIRST]


@pytest.fixture
def second_stage(root: Path) -> Path:
    return add_second_stage(root)


def test_the_second_stage_keeps_the_masks_of_the_first(root: Path) -> None:
    before = open_data(root)[1]
    after = open_data(add_second_stage(root))[1]
    masks = dict(zip(after.ids, after.annotation_digests["masks"], strict=True))
    for name, mask in zip(before.ids, before.annotation_digests["masks"], strict=True):
        assert masks[name] == mask or not mask, name


@pytest.mark.parametrize("number", [8, 9])
def test_the_second_stage_has_masks_of_the_first_stages_test_images(second_stage: Path, number: int) -> None:
    source, index = open_data(second_stage)
    row, expected = index.ids.index(image_id(number)), blob(number, width=64, height=64, visible=number != 8)[1]
    assert np.array_equal(source.masks(row), expected[None])
    assert source.labels(row).tolist() == [float(expected.any())]
    assert index.official[row] == "test"


def test_test_images_of_the_second_stage_have_neither_mask_nor_label(second_stage: Path) -> None:
    source, index = open_data(second_stage)
    rows = [index.ids.index(second_stage_id(number)) for number in range(3)]
    assert [index.annotation_digests["masks"][row] for row in rows] == ["", "", ""]
    assert {index.official[row] for row in rows} == {"test"}
    assert all(np.isnan(source.labels(row)).all() for row in rows)
    assert check(index) == []


def test_the_table_of_the_second_stage_is_sufficient(second_stage: Path) -> None:
    expected = open_data(second_stage)[1].annotation_digests
    (second_stage / "train-rle.csv").unlink()
    assert open_data(second_stage)[1].annotation_digests == expected


def test_without_a_table_of_masks_the_root_is_refused(root: Path) -> None:
    (root / "train-rle.csv").unlink()
    with pytest.raises(DataError, match=r"no table of masks; allowed: stage_2_train\.csv or train-rle\.csv; complete"):
        open_data(root)


def test_missing_images_of_the_table_are_refused_with_its_name(second_stage: Path) -> None:
    file_of(second_stage, TEST).unlink()
    with pytest.raises(DataError, match=rf"stage_2_train\.csv names 1 images that are not there \({TEST}\)"):
        open_data(second_stage)
