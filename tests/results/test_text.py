"""Text of files and settings shown on terminals and in spreadsheets."""

import pytest

from results.text import printable, printable_lines, spreadsheet_cell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left lung é 😀", "left lung é 😀"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202egpj", "a\\u202egpj"),
        ("a\u2066b\u2069", "a\\u2066b\\u2069"),
        ("\udcff", "\\udcff"),
        ("\u2028\x85", "\\u2028\\x85"),
        ("a\xa0b", "a\xa0b"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_invisible_characters_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_line_breaks_are_kept() -> None:
    assert printable_lines("a\n\tb\x1bc\n") == "a\n\tb\\x1bc\n"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|x", "-x", "@SUM(A1)"])
def test_formula_in_a_cell_is_text(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, 3, None, "-0.5", "+1e-4", "unet", "a=b", "-inf"])
def test_numbers_and_other_texts_are_unchanged(value: object) -> None:
    assert spreadsheet_cell(value) == value
