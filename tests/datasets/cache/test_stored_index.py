"""The index of a large layout is kept, and made again when one of its files or tables changed."""

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
    """Let all be as if written long ago: what was written just now is not kept."""
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(LONG_AGO, LONG_AGO))


def opened(root: Path, **settings: object) -> tuple[Source, Index]:
    source = open_source(ChexpertSettings.model_validate({"root": root} | settings))
    return source, source.index(root.parent / "cache")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the roots whose index is made from then on, not read from where it is kept."""
    roots, make = list[Path](), files.FileSource._build_index

    def noted(source: files.FileSource, *given: Any) -> Index:  # noqa: ANN401 - whatever it is given
        roots.append(source._root)
        return make(source, *given)

    monkeypatch.setattr(files.FileSource, "_build_index", noted)
    return roots


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root whose index is kept."""
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    opened(root)
    return root


def test_a_kept_index_is_the_one_that_was_made(root: Path) -> None:
    kept = opened(root)[1]
    shutil.rmtree(root.parent / "cache" / "indices")
    assert vars(opened(root)[1]) == vars(kept)


def test_a_kept_index_has_the_spacings_of_the_images(root: Path, tmp_path: Path) -> None:
    index = replace(opened(root)[1], spacings=[(0.14, 0.15), *[()] * 10, (5.0, 1.0, 1.5)])
    listing = opened(root)[0]._listing  # type: ignore[attr-defined]
    path = tmp_path / "index.parquet"
    stored_index.save(stored_index.StoredIndex(index=index, listing=listing, tables={}), path, time.time_ns())
    loaded = stored_index.load(path, root, listing.folders)
    assert loaded is not None
    assert vars(loaded.index) == vars(index)


def test_a_kept_index_is_not_made_again(root: Path, made: list[Path]) -> None:
    assert len(opened(root)[1]) == 12
    assert made == []


def test_rows_of_a_kept_index_are_read_as_those_of_one_just_made(root: Path) -> None:
    kept = opened(root)[0]
    shutil.rmtree(root.parent / "cache" / "indices")
    made = opened(root)[0]
    for row in (0, 11):
        assert np.array_equal(kept.image(row), made.image(row))
        assert np.array_equal(kept.labels(row), made.labels(row), equal_nan=True)


def touch(file: Path) -> None:
    os.utime(file)


def resize(file: Path) -> None:
    """Change the bytes and not the time."""
    file.write_bytes(file.read_bytes() + b" ")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))


def rewrite(file: Path) -> None:
    """Change the bytes; size and time stay."""
    status = file.stat()
    file.write_bytes(b"x" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def exchange(file: Path) -> None:
    """Put another file of the same size and time in its place."""
    other = file.with_name("other.jpg")
    shutil.copy2(file, other)
    other.replace(file)


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("change", [touch, resize, rewrite, exchange])
def test_where_a_file_changed_the_index_is_made_again(
    change: Callable[[Path], None], place: int, root: Path, made: list[Path]
) -> None:
    change(root / opened(root)[1].ids[place])
    opened(root)
    assert made == [root]


def test_where_an_image_is_gone_the_tables_are_read_again(root: Path) -> None:
    (root / FIRST).unlink()
    with pytest.raises(DataError, match=r"names 1 images that are not there"):
        opened(root)


def test_a_table_of_the_same_size_and_time_is_read_again(root: Path) -> None:
    rewrite(root / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv lacks the columns"):
        opened(root)


def test_images_that_no_table_names_change_nothing(root: Path) -> None:
    before = opened(root)[1]
    save(picture(5), (root / FIRST).with_name("view3_frontal.jpg"))
    assert vars(opened(root)[1]) == vars(before)
    shutil.rmtree(root.parent / "cache" / "indices")
    assert vars(opened(root)[1]) == vars(before)


def test_another_picture_in_a_file_has_another_content(root: Path) -> None:
    before = opened(root)[1]
    save(picture(77), root / FIRST)
    after = opened(root)[1]
    assert [old != new for old, new in zip(before.content, after.content, strict=True)] == [True] + [False] * 11


def test_a_changed_table_is_read_again(root: Path) -> None:
    table = root / "train.csv"
    table.write_text(table.read_text().replace("-1.0", "1.0"))
    source, _ = opened(root)
    assert not np.isnan(source.labels(0)).any()


def test_a_table_that_changes_after_its_index_was_opened_is_refused_when_it_is_read(root: Path) -> None:
    source, _ = opened(root)
    table = root / "train.csv"
    table.write_text(table.read_text().replace("-1.0", "1.0"))
    with pytest.raises(DataError, match=r"train\.csv changed since it was indexed"):
        source.labels(0)


def test_other_settings_have_an_index_of_their_own(root: Path) -> None:
    assert len(opened(root, views="frontal")[1]) == 6
    assert len(opened(root)[1]) == 12


def test_the_cost_of_annotation_belongs_to_no_index(root: Path) -> None:
    files = set((root.parent / "cache" / "indices").iterdir())
    opened(root, annotation_minutes={"class": 0.1})
    assert set((root.parent / "cache" / "indices").iterdir()) == files


def test_an_index_of_a_table_that_was_written_just_now_is_not_kept(tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    os.utime(root / "train.csv")
    opened(root)
    assert not (tmp_path / "cache" / "indices").exists()


def test_how_long_reading_takes_does_not_make_a_new_table_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_chexpert(tmp_path / "chexpert")
    age(root)
    read = files.read_manifest

    def slow(*given: Any) -> Any:  # noqa: ANN401 - whatever it is given
        time.sleep(0.6)
        return read(*given)

    monkeypatch.setattr(files, "read_manifest", slow)
    monkeypatch.setattr(stored_index, "SETTLED_NS", 500_000_000)
    os.utime(root / "train.csv")
    opened(root)
    assert not (tmp_path / "cache" / "indices").exists()


def test_a_kept_index_that_was_cut_off_is_made_again(root: Path) -> None:
    (file,) = (root.parent / "cache" / "indices").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert len(opened(root)[1]) == 12
