"""The quirks of the published layouts."""

import json
from pathlib import Path

import numpy as np
import pytest

from datasets.checks.findings import check
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import CcxsSettings, CovidLungBoxesSettings, DataSettings, open_source
from datasets.sources.ccxs import CLASSES
from tests.support.ccxs import write_ccxs
from tests.support.covid_lung_boxes import NAMELESS, write_covid_lung_boxes
from tests.support.pictures import picture, save


@pytest.fixture
def ccxs(tmp_path: Path) -> Path:
    return write_ccxs(tmp_path / "ccxs")


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    return write_covid_lung_boxes(tmp_path / "boxes")


def open_data(settings: DataSettings, tmp_path: Path) -> tuple[Source, Index]:
    source = open_source(settings)
    return source, source.index(tmp_path / "cache")


def test_a_crop_is_placed_at_left_and_top(ccxs: Path, tmp_path: Path) -> None:
    source, index = open_data(CcxsSettings(root=ccxs), tmp_path)
    expected = np.zeros((48, 64), np.uint8)
    expected[6 + 1 : 6 + 30 - 1, 4 + 1 : 4 + 20 - 1] = 1
    assert np.array_equal(source.masks(index.ids.index("first.jpeg"))[0], expected)


def test_two_masks_of_one_class_are_united(ccxs: Path, tmp_path: Path) -> None:
    source, index = open_data(CcxsSettings(root=ccxs), tmp_path)
    row = index.ids.index("twice.png")
    expected = np.zeros((48, 64), np.uint8)
    expected[7:17, 5:13] = 1
    expected[15:33, 11:21] = 1
    assert np.array_equal(source.masks(row)[0], expected)
    assert [box.name for box in source.boxes(row)] == ["Right Lung", "Right Lung", "Left Lung"]


def test_a_row_without_mask_is_a_label_but_neither_mask_nor_box(ccxs: Path, tmp_path: Path) -> None:
    source, index = open_data(CcxsSettings(root=ccxs), tmp_path)
    row, probes = index.ids.index("first.jpeg"), CLASSES.index("Monitoring Probes")
    assert source.labels(row)[probes] == 1
    assert not source.masks(row)[probes].any()
    assert "Monitoring Probes" not in {box.name for box in source.boxes(row)}


def test_a_missing_class_is_an_empty_mask(ccxs: Path, tmp_path: Path) -> None:
    source, index = open_data(CcxsSettings(root=ccxs), tmp_path)
    masks = source.masks(index.ids.index("no-right.jpg"))
    assert masks.any(axis=(1, 2)).tolist() == [name == "Left Lung" for name in CLASSES]


def test_a_moved_crop_changes_only_the_masks_hash_of_its_image(ccxs: Path, tmp_path: Path) -> None:
    before = open_data(CcxsSettings(root=ccxs), tmp_path)[1]
    table = ccxs / "structure.csv"
    table.write_text(table.read_text().replace("64x48,6,4,20,30", "64x48,6,5,20,30"))
    after = open_data(CcxsSettings(root=ccxs), tmp_path)[1]
    changed = [
        a != b for a, b in zip(before.annotation_digests["masks"], after.annotation_digests["masks"], strict=True)
    ]
    assert changed == [name == "first.jpeg" for name in before.ids]


def test_a_crop_beyond_the_image_or_of_another_size_is_a_fault(ccxs: Path, tmp_path: Path) -> None:
    table = ccxs / "structure.csv"
    sound = table.read_text()
    table.write_text(sound.replace("64x48,6,36,20,30", "64x48,6,50,20,30"))
    faults = faults_of(ccxs, tmp_path)
    assert "at (50, 6) with 20 x 30 pixels leaves its image" in faults["first.jpeg"]
    table.write_text(sound.replace("64x48,6,36,20,30", "64x48,6,36,20,31"))
    faults = faults_of(ccxs, tmp_path)
    assert "has 20 x 30 pixels; allowed: 20 x 31" in faults["first.jpeg"]


def faults_of(ccxs: Path, tmp_path: Path) -> dict[str, str]:
    index = open_data(CcxsSettings(root=ccxs), tmp_path)[1]
    return {name: index.fault(row) for row, name in enumerate(index.ids)}


def test_an_image_of_another_size_than_in_the_table_is_a_fault(ccxs: Path, tmp_path: Path) -> None:
    save(picture(5, width=60), ccxs / "images" / "second.jpeg")
    faults = faults_of(ccxs, tmp_path)
    assert "second.jpeg has 60 x 48 pixels; allowed: 64 x 48" in faults["second.jpeg"]
    assert sum(map(bool, faults.values())) == 1


def test_a_missing_mask_file_is_a_fault_and_a_missing_image_or_table_is_refused(ccxs: Path, tmp_path: Path) -> None:
    (ccxs / "masks" / "003_0.png").unlink()
    faults = faults_of(ccxs, tmp_path)
    assert "masks/003_0.png is missing" in faults["second.jpeg"]
    (ccxs / "images" / "twice.png").unlink()
    with pytest.raises(DataError, match=r"structure\.csv names 1 images that are not there \(twice\.png\)"):
        open_data(CcxsSettings(root=ccxs), tmp_path)
    (ccxs / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"metadata\.csv cannot be read"):
        open_data(CcxsSettings(root=ccxs), tmp_path)


def test_a_table_without_a_required_column_is_refused_with_both_names(ccxs: Path, tmp_path: Path) -> None:
    table = ccxs / "structure.csv"
    table.write_text(table.read_text().replace("Resolution", "Auflösung"))
    with pytest.raises(DataError, match=r"structure\.csv lacks the columns \['Resolution'\]"):
        open_data(CcxsSettings(root=ccxs), tmp_path)


def test_entries_without_a_file_are_excluded_with_their_labels(boxes: Path, tmp_path: Path) -> None:
    _, index = open_data(CovidLungBoxesSettings(root=boxes), tmp_path)
    assert index.ids == ["a.jpg", "b.png", "c.jpg", "d.jpeg"]
    assert index.labels == ("ARDS", "COVID-19", "Varicella")


def test_findings_become_labels(boxes: Path, tmp_path: Path) -> None:
    source, _ = open_data(CovidLungBoxesSettings(root=boxes), tmp_path)
    assert source.labels(0).tolist() == [1, 1, 0]
    assert source.labels(1).tolist() == [0, 0, 0]
    assert np.isnan(source.labels(2)).all()


def test_a_box_without_category_is_excluded_and_reported(boxes: Path, tmp_path: Path) -> None:
    source, index = open_data(CovidLungBoxesSettings(root=boxes), tmp_path)
    assert [box.name for box in source.boxes(3)] == ["Right Lung"]
    assert [finding.ids for finding in check(index) if str(NAMELESS) in finding.message] == [("d.jpeg",)]


def test_both_chest_sets_have_common_patients(ccxs: Path, boxes: Path, tmp_path: Path) -> None:
    first = open_data(CcxsSettings(root=ccxs), tmp_path)[1]
    second = open_data(CovidLungBoxesSettings(root=boxes), tmp_path)[1]
    assert set(first.patients) & set(second.patients) == {"ieee8023/7"}


def test_a_malformed_coco_file_is_refused_with_the_position(boxes: Path, tmp_path: Path) -> None:
    path = boxes / "annotations" / "annotations.json"
    coco = json.loads(path.read_text())
    coco["images"][1]["width"] = "wide"
    path.write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"annotations\.json: images\.1\.width"):
        open_data(CovidLungBoxesSettings(root=boxes), tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"annotations\.json cannot be read"):
        open_data(CovidLungBoxesSettings(root=boxes), tmp_path)
