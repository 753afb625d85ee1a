"""Text files of a data set (UTF-8), and Unicode normalisation of names."""

import json
import stat
import unicodedata
from pathlib import Path
from typing import Any

from datasets.errors import DataError


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises `DataError`, also for pipes and devices, which may never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is no regular file; allowed: a file; replace it")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); allowed: a readable file; restore it") from error


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without byte order mark. Raises `DataError`."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); allowed: UTF-8; save the file as UTF-8"
        ) from error


def read_json(path: Path, allowed: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the contents of a JSON file. Raises `DataError`, which says that `allowed` is what it should be."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        place = str(error)
        if isinstance(error, json.JSONDecodeError):
            place = f"line {error.lineno}: {error.msg}"
        elif isinstance(error, RecursionError):
            place = "it is nested too deeply"
        raise DataError(f"{path} is no JSON ({place}); allowed: {allowed}; correct it") from error


def read_lines(path: Path) -> list[str]:
    """Return the non-empty lines of a file, stripped. Raises `DataError`."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def normal(name: str) -> str:
    """Normalise a name to Unicode NFC: file systems store different forms that look the same."""
    return unicodedata.normalize("NFC", name)
