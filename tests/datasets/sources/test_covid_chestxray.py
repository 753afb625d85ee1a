"""The COVID-19 image data collection: findings as paths, lines that name one file twice, generated masks."""

import os
from pathlib import Path

import pytest

from datasets.checks.findings import check
from datasets.checks.leakage import matches
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import CcxsSettings, CovidChestxraySettings, open_source
from tests.support.ccxs import write_ccxs
from tests.support.covid_chestxray import DOUBLE_SUFFIX, FINDINGS, MISFIT, TWICE, UNMASKED, write_covid_chestxray

REAL = Path(__file__).parents[3] / os.environ.get("STUDY_REAL_DATA", "../shared/data")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_covid_chestxray(tmp_path / "collection")


def open_data(root: Path) -> tuple[Source, Index]:
    source = open_source(CovidChestxraySettings(root=root))
    return source, source.index(root.parent / "cache")


def positive_labels(source: Source, index: Index, row: int) -> set[str]:
    return {name for name, value in zip(index.labels, source.labels(row), strict=True) if value == 1}


def test_only_radiographs_with_a_file_are_read(root: Path) -> None:
    _, index = open_data(root)
    assert [name[:3] for name in index.ids] == [f"{number:03d}" for number in range(8)]
    assert not any(index.faults)


@pytest.mark.parametrize(
    ("finding", "labels"),
    [
        ("Pneumonia/Viral/COVID-19", {"Pneumonia", "Viral", "COVID-19"}),
        ("COVID-19, ARDS", {"COVID-19", "ARDS"}),
        ("Pneumonia/Viral/Herpes , ARDS", {"Pneumonia", "Viral", "Herpes", "ARDS"}),
        ("No Finding", set()),
    ],
)
def test_every_part_of_a_finding_is_a_label(root: Path, finding: str, labels: set[str]) -> None:
    table = root / "metadata.csv"
    quoted = f'"{finding}"'
    table.write_text(table.read_text().replace(FINDINGS[1], quoted))
    source, index = open_data(root)
    assert positive_labels(source, index, 1) == labels
    assert index.annotation_digests["labels"][1]
    assert "No Finding" not in index.labels


@pytest.mark.parametrize("finding", ["todo", "Unknown", ""])
def test_an_unknown_finding_has_no_labels(root: Path, finding: str) -> None:
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace(FINDINGS[1], finding))
    assert open_data(root)[1].annotation_digests["labels"][1] == ""


def test_masks_are_lungs_if_there_is_a_file_of_the_size_of_the_image(root: Path) -> None:
    source, index = open_data(root)
    assert index.classes == ("Lungs",)
    assert [row for row in range(8) if not index.annotation_digests["masks"][row]] == [UNMASKED, MISFIT]
    assert "another size than its image" in index.remarks[MISFIT]
    mask = source.masks(DOUBLE_SUFFIX)[0]
    assert (mask[40, 10], mask[40, 32], mask[40, 45]) == (1, 0, 1)


def test_the_last_of_two_lines_for_one_file_is_used_and_a_warning_issued(root: Path) -> None:
    _, index = open_data(root)
    assert index.patients[TWICE] == "ieee8023/0"
    assert "has the patients ['900', '0']" in index.remarks[TWICE]
    assert [bool(remark) for remark in index.remarks] == [row in (TWICE, MISFIT) for row in range(8)]


def test_patients_agree_with_those_of_the_derived_data_sets(root: Path, tmp_path: Path) -> None:
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace("3,,,COVID-19", "7,,,COVID-19").replace("3,,,Pneum", "7,,,Pneum"))
    ccxs = open_source(CcxsSettings(root=write_ccxs(tmp_path / "ccxs"))).index(tmp_path / "cache")
    index = open_data(root)[1]
    patients = {(index.patients[match.row], ccxs.patients[match.target_row]) for match in matches(index, ccxs)}
    assert patients == {("ieee8023/7", "ieee8023/7")}


def test_a_table_without_a_required_column_is_refused(root: Path) -> None:
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace("modality", "kind"))
    with pytest.raises(DataError, match=r"metadata\.csv lacks the columns \['modality'\]"):
        open_data(root)


def test_a_collection_without_masks_has_no_classes(root: Path) -> None:
    for path in (root / "annotations" / "lungVAE-masks").iterdir():
        path.unlink()
    _, index = open_data(root)
    assert index.classes == ()
    assert not any(index.annotation_digests["masks"])


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images at {REAL}; set STUDY_REAL_DATA")
def test_the_real_tables_fit_the_real_images(tmp_path: Path) -> None:
    root = tmp_path / "collection"
    (root / "images").mkdir(parents=True)
    for name in ("metadata.csv", "annotations"):
        (root / name).symlink_to(REAL / "ieee8023-annotations" / name)
    for path in (*(REAL / "ccxs" / "images").iterdir(), *(REAL / "gb-lung-boxes" / "images").iterdir()):
        if path.name.startswith(("00001", "1666", "ciaa", "nejmc")):
            (root / "images" / path.name).symlink_to(path)
    _, index = open_data(root)
    assert (len(index), sum(map(bool, index.annotation_digests["masks"]))) == (19, 7)
    assert [finding.severity for finding in check(index)] == ["warning"] * 3  # masks of another size
    assert index.labels == ("ARDS", "COVID-19", "Klebsiella", "Mycoplasma Bacterial Pneumonia", "Varicella")
