"""Commands in the comments of the catalog: what they set is allowed, and what they show is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.config.document import read_document
from study.config.validation import parse
from study.planning.load import load_spec
from tests.support.presets import CATALOG

FILES = sorted(CATALOG.glob("*.yaml"))


def comment(file: Path) -> str:
    """Return the comments of a file as one line."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def changes(file: Path) -> Iterator[str]:
    """Yield what is set in the comments of a file, but for placeholders."""
    for change in re.findall(r"--set ([\w.]+=(?:'[^']*'|\S+))", comment(file)):
        if "..." not in change:
            yield "".join(shlex.split(change.rstrip(".,;:)`")))


@pytest.mark.parametrize(
    ("file", "change"), [(file, change) for file in FILES for change in changes(file)],
    ids=[f"{file.stem} {change}" for file in FILES for change in changes(file)],
)  # fmt: skip
def test_settings_in_comments_are_allowed(file: Path, change: str) -> None:
    assert load_spec(read_document(file, [change]), file=str(file))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_tables_in_comments_are_of_the_study_and_have_what_they_show(file: Path) -> None:
    spec, _ = parse(read_document(file, []))
    assert spec is not None
    for name, options in re.findall(r"`study table (\S+)([^`]*)`", comment(file)):
        assert name == spec.name
        assert "--hours" not in options or spec.compare.hours
        assert "--search" not in options or spec.search is not None
        assert "--published" not in options or spec.published
