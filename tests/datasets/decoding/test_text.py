import os
from pathlib import Path

import pytest

from datasets.decoding.text import normal, read_lines, read_text
from datasets.errors import DataError
from datasets.sources.common.tables import check_patients, read_table


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_text_is_utf_8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffc\u0153ur\n\n  lung \r\n".encode())
    assert read_lines(tmp_path / "a.txt") == ["c\u0153ur", "lung"]
    (tmp_path / "a.txt").write_bytes("lung\nc\u0153ur".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.txt line 2 is not UTF-8 \(byte 0x9c\); allowed: UTF-8; save"):
        read_text(tmp_path / "a.txt")


def test_files_that_are_not_regular_are_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="is no regular file"):
            read_text(place)
    with pytest.raises(DataError, match="cannot be read"):
        read_text(tmp_path / "none")


def test_unicode_forms_of_a_name_are_equal() -> None:
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


def test_empty_fields_and_unnamed_columns_are_accepted(tmp_path: Path) -> None:
    text = 'image,patient,,\n1,"Doe, Jo",,\n2,b\n3,c,,,,\n4,d,x,\n\n'
    _, lines = read_table(table(tmp_path / "a.csv", text), ("image", "patient"))
    assert [(line["image"], line["patient"]) for line in lines] == [
        ("1", "Doe, Jo"),
        ("2", "b"),
        ("3", "c"),
        ("4", "d"),
    ]


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "NA", "n/a", "<NA>", "-", "?", "Unknown"])
def test_a_missing_value_is_not_a_patient(name: str) -> None:
    with pytest.raises(DataError, match=r"line 2: patient is .* stands for a missing value"):
        check_patients([("line 1", "anna"), ("line 2", name)])


@pytest.mark.parametrize("notation", ["12.0", "012", "12."])
def test_two_notations_of_a_number_are_one_patient(notation: str) -> None:
    with pytest.raises(DataError, match=r"line 2: patient is '.*', and '12' in line 1"):
        check_patients([("line 1", "12"), ("line 2", notation)])
    check_patients([("line 1", "12"), ("line 2", "12"), ("line 3", "12.5"), ("line 4", "a12")])


def test_numbers_that_differ_beyond_floating_point_precision_are_different_patients() -> None:
    names = ["1234567890123456701", "1234567890123456702", "1e5", "100000", "1_2", "12", "inf", "1e999"]
    check_patients([(f"line {line}", name) for line, name in enumerate(names)])


@pytest.mark.parametrize("name", ["1.23457E+18", "1e+20"])
def test_a_number_rounded_by_a_spreadsheet_is_refused_as_a_patient(name: str) -> None:
    with pytest.raises(DataError, match=r"rounded; allowed: all of its digits; export the column as text"):
        check_patients([("line 1", name)])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_refused_with_the_remedy(tmp_path: Path, separator: str) -> None:
    text = "image,x\n1,2.5\n".replace(",", separator).replace(".", ",")
    with pytest.raises(DataError, match="separate its values with commas, and write decimal points"):
        read_table(table(tmp_path / "a.csv", text), ("image", "x"))


def test_lines_of_commas_and_spaces_are_skipped(tmp_path: Path) -> None:
    _, lines = read_table(table(tmp_path / "a.csv", "image,patient\n1,a\n,\n  \n\n2,b\n , \n"), ("image", "patient"))
    assert [(line["image"], line["patient"]) for line in lines] == [("1", "a"), ("2", "b")]


def test_an_optional_column_in_capitals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'Category', which is not read; allowed: category"):
        read_table(table(tmp_path / "a.csv", "image,Category\n1,a\n"), ("image",), ("category",))


def test_an_underscore_is_not_part_of_a_number(tmp_path: Path) -> None:
    _, (line,) = read_table(table(tmp_path / "a.csv", "image,x\n1,1_0\n"), ("image", "x"))
    with pytest.raises(DataError, match="x is '1_0'; allowed: a number"):
        line.number("x")
