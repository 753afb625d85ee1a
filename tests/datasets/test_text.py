import os
from pathlib import Path

import pytest

from datasets.errors import DataError
from datasets.sources.tables import check_patients, read_table
from datasets.text import normal, read_lines, read_text


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_text_is_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffc\u0153ur\n\n  lung \r\n".encode())
    assert read_lines(tmp_path / "a.txt") == ["c\u0153ur", "lung"]
    (tmp_path / "a.txt").write_bytes("lung\nc\u0153ur".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.txt line 2 is not UTF-8 \(byte 0x9c\); allowed: UTF-8; save"):
        read_text(tmp_path / "a.txt")


def test_what_is_no_regular_file_is_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file"):
            read_text(place)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none")


def test_forms_of_one_name_are_equal() -> None:
    assert normal("le\u0301sion") == normal("l\u00e9sion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,patient\n1,Doe, Jo\n", "line 2 has 3 fields; allowed: 2"),
        ("image,patient,category\n1,a,b\n2,a\n", "line 3 has 2 fields; allowed: 3"),
        ("image,patient,patient\n1,a,b\n", "has the column 'patient' twice"),
        ('image,patient\n1,"a\n', "line 2 is no CSV"),
        ("image;patient\n1;a\n", "lacks the columns"),
        ("", "lacks the columns"),
    ],
)
def test_a_table_whose_values_could_be_shifted_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(table(tmp_path / "a.csv", text), ("image", "patient"))


def test_empty_fields_and_columns_without_a_name_are_let_through(tmp_path: Path) -> None:
    text = 'image,patient,,\n1,"Doe, Jo",,\n2,b\n3,c,,,,\n4,d,x,\n\n'
    _, lines = read_table(table(tmp_path / "a.csv", text), ("image", "patient"))
    assert [(line["image"], line["patient"]) for line in lines] == [
        ("1", "Doe, Jo"),
        ("2", "b"),
        ("3", "c"),
        ("4", "d"),
    ]


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "NA", "n/a", "<NA>"])
def test_a_missing_value_is_no_patient(name: str) -> None:
    with pytest.raises(DataError, match=r"line 2: patient is .* stands for a missing value"):
        check_patients([("line 1", "anna"), ("line 2", name)])


@pytest.mark.parametrize("other", ["12.0", "012", "1.2e1"])
def test_a_number_written_in_two_ways_is_no_two_patients(other: str) -> None:
    with pytest.raises(DataError, match=r"line 2: patient is '.*', and '12' in line 1"):
        check_patients([("line 1", "12"), ("line 2", other)])
    check_patients([("line 1", "12"), ("line 2", "12"), ("line 3", "12.5"), ("line 4", "a12")])
