"""Escape text from files and settings for terminals, HTML pages and spreadsheets."""

import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: controls, formats such as bidirectional overrides, surrogates, line and paragraph separators."""
_JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: invisible too, but Persian, Indic scripts and emoji need them."""
_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """Escape line breaks, terminal sequences, bidirectional overrides and other invisible characters."""
    if text.isprintable():
        return text
    return _escape(text, _JOINERS)


def printable_lines(text: str) -> str:
    """Escape as `printable` does, but keep line breaks and tabs."""
    return text if text.isprintable() else _escape(text, f"{_JOINERS}\n\t")


def _escape(text: str, kept: str) -> str:
    return "".join(
        _escaped(char) if unicodedata.category(char) in _INVISIBLE and char not in kept else char for char in text
    )


def spreadsheet_cell(value: object) -> object:
    """Return a value for a CSV file, with an apostrophe before text that a spreadsheet would run as a formula.

    Numbers are returned unchanged, and so is text that is a number.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
