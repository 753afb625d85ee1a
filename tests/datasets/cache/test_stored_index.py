"""The index of a large layout is stored, and rebuilt if one of its files or tables changed."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.cache import stored_index
from datasets.errors import DataError
from datasets.source import Index, Source
from datasets.sources import ChexpertSettings, open_source
from datasets.sources.common import files
from tests.support.chexpert import write_chexpert
from tests.support.pictures import picture, save

LONG_AGO = 1_600_000_000 * 10**9
FIRST = "train/patient00001/study1/view1_frontal.jpg"


def age(root: Path) -> None:
    """Set old modification times: indexes of files that were just written are not stored."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


def open_data(root: Path, **settings: object) -> tuple[Source, Index]:
    source = open_source(ChexpertSettings.model_validate({"root": root} | settings))
    return source, source.index(root.parent / "cache")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the roots whose index is rebuilt instead of read from the cache."""
    roots, make = list[Path](), files.FileSource._build_index

    def recorded(source: files.FileSource, *arguments: Any) -> Index:  # noqa: ANN401 - whatever it is given
        roots.append(source._root)
        return make(source, *arguments)

    monkeypatch.setattr(files.FileSource, "_build_index", recorded)
    return roots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose index is stored."""
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    open_data(root)
    return root


def test_a_stored_index_equals_the_built_one(root: Path) -> None:
    stored = open_data(root)[1]
    shutil.rmtree(root.parent / "cache" / "indices")
    assert vars(open_data(root)[1]) == vars(stored)


def test_a_stored_index_has_the_spacings_of_the_images(root: Path, tmp_path: Path) -> None:
    index = replace(open_data(root)[1], spacings=[(0.14, 0.15), *[()] * 10, (5.0, 1.0, 1.5)])
    listing = open_data(root)[0]._listing  # type: ignore[attr-defined]
    path = tmp_path / "index.parquet"
    stored_index.save(stored_index.StoredIndex(index=index, listing=listing, tables={}), path, time.time_ns())
    loaded = stored_index.load(path, root, listing.folders)
    assert loaded is not None
    assert vars(loaded.index) == vars(index)


def test_a_stored_index_is_not_rebuilt(root: Path, built: list[Path]) -> None:
    assert len(open_data(root)[1]) == 12
    assert built == []


def test_rows_of_a_stored_index_are_read_as_those_of_a_built_one(root: Path) -> None:
    stored = open_data(root)[0]
    shutil.rmtree(root.parent / "cache" / "indices")
    built = open_data(root)[0]
    for row in (0, 11):
        assert np.array_equal(stored.image(row), built.image(row))
        assert np.array_equal(stored.labels(row), built.labels(row), equal_nan=True)


def touch(file: Path) -> None:
    os.utime(file)


def resize(file: Path) -> None:
    """Change the content; the modification time stays."""
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))


def rewrite(file: Path) -> None:
    """Change the content; size and modification time stay."""
    status = file.stat()
    file.write_bytes(b"x" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(file: Path) -> None:
    """Replace the file by another one of the same size and modification time."""
    other = file.with_name("other.jpg")
    shutil.copy2(file, other)
    other.replace(file)


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("change", [touch, resize, rewrite, exchange])
def test_a_changed_file_rebuilds_the_index(
    change: Callable[[Path], None], place: int, root: Path, built: list[Path]
) -> None:
    change(root / open_data(root)[1].ids[place])
    open_data(root)
    assert built == [root]


def test_a_removed_image_reads_the_tables_again(root: Path) -> None:
    (root / FIRST).unlink()
    with pytest.raises(DataError, match=r"names 1 images that are not there"):
        open_data(root)


def test_a_table_of_the_same_size_and_time_is_read_again(root: Path) -> None:
    rewrite(root / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv lacks the columns"):
        open_data(root)


def test_images_outside_of_the_tables_change_nothing(root: Path) -> None:
    before = open_data(root)[1]
    save(picture(5), (root / FIRST).with_name("view3_frontal.jpg"))
    assert vars(open_data(root)[1]) == vars(before)
    shutil.rmtree(root.parent / "cache" / "indices")
    assert vars(open_data(root)[1]) == vars(before)


def test_a_file_with_another_image_has_other_content(root: Path) -> None:
    before = open_data(root)[1]
    save(picture(77), root / FIRST)
    after = open_data(root)[1]
    assert [old != new for old, new in zip(before.content, after.content, strict=True)] == [True] + [False] * 11


def test_a_changed_table_is_read_again(root: Path) -> None:
    table = root / "train.csv"
    table.write_text(table.read_text().replace("-1.0", "1.0"))
    source, _ = open_data(root)
    assert not np.isnan(source.labels(0)).any()


def test_a_table_changed_after_its_index_was_opened_is_refused_when_it_is_read(root: Path) -> None:
    source, _ = open_data(root)
    table = root / "train.csv"
    table.write_text(table.read_text().replace("-1.0", "1.0"))
    with pytest.raises(DataError, match=r"train\.csv changed since it was indexed"):
        source.labels(0)


def test_other_settings_have_their_own_index(root: Path) -> None:
    assert len(open_data(root, views="frontal")[1]) == 6
    assert len(open_data(root)[1]) == 12


def test_the_cost_of_annotation_does_not_change_the_index(root: Path) -> None:
    files = set((root.parent / "cache" / "indices").iterdir())
    open_data(root, annotation_minutes={"class": 0.1})
    assert set((root.parent / "cache" / "indices").iterdir()) == files


def test_the_index_of_a_table_that_was_just_written_is_not_stored(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    os.utime(root / "train.csv")
    open_data(root)
    assert not (tmp_path / "cache" / "indices").exists()


def test_the_duration_of_reading_does_not_age_a_new_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    read = files.read_manifest

    def slow(*arguments: Any) -> Any:  # noqa: ANN401 - whatever it is given
        time.sleep(0.6)
        return read(*arguments)

    monkeypatch.setattr(files, "read_manifest", slow)
    monkeypatch.setattr(stored_index, "SETTLED_NS", 500_000_000)
    os.utime(root / "train.csv")
    open_data(root)
    assert not (tmp_path / "cache" / "indices").exists()


def test_a_truncated_index_is_rebuilt(root: Path) -> None:
    (file,) = (root.parent / "cache" / "indices").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert len(open_data(root)[1]) == 12
