import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from datasets.cache import arrays
from datasets.errors import DataError
from datasets.loading.prepare import prepared
from datasets.loading.truth import truth, truth_entry
from datasets.settings import NATIVE, ImageSettings
from datasets.source import Box, Index, Pixels, Source
from datasets.sources import FolderSettings, open_source
from datasets.sources.common import files
from datasets.targets import Fit, fit_image, fit_masks
from tests.support.folder import write_folder

COUNT = 12
IMAGE = ImageSettings(size=32)


def random_image(row: int) -> Pixels:
    return np.random.default_rng(row).integers(1, 256, (40 + row, 60), dtype=np.uint8)


class Drawn(Source):
    """Random images; counts reads, and may be slow or fail."""

    def __init__(self, *, pause: float = 0.0, broken: int | None = None, log: Path | None = None) -> None:
        self.read = 0
        self.pause, self.broken, self.log = pause, broken, log

    def index(self, cache: Path) -> Index:
        rows = [f"{row:03d}" for row in range(COUNT)]
        return Index(
            ids=rows,
            patients=rows,
            categories=[""] * COUNT,
            official=[""] * COUNT,
            content=rows,
            thumbnails=rows,
            faults=["", "truncated", *[""] * (COUNT - 2)],
            annotation_digests={
                "masks": ["", *rows[1:]],
                "labels": ["", *rows[1:]],
                "boxes": ["", *rows[1:]],
                "centres": ["", *rows[1:]],
            },
            classes=("low", "high"),
            overlapping=False,
            labels=("even",),
            structures=("disc",),
            heights=[40 + row for row in range(COUNT)],
            widths=[60] * COUNT,
        )

    def image(self, row: int) -> Pixels:
        if row == 1:
            raise AssertionError("a row with a fault is never read")
        if row == self.broken:
            raise DataError("it broke")
        time.sleep(self.pause)
        self.read += 1
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{row}\n")
        return random_image(row)

    def masks(self, row: int) -> Pixels:
        return (random_image(row) // 86).astype(np.uint8)

    def labels(self, row: int) -> np.ndarray:
        return np.array([row % 2 == 0], dtype=np.float32)

    def boxes(self, row: int) -> tuple[Box, ...]:
        return (Box(name="disc", x=15, y=0, width=30, height=40 + row),)

    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        return {"disc": (15.0, (40 + row) / 2)}


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "prepared").iterdir() if path.is_dir())


def test_images_are_fitted_and_rows_with_faults_are_zero(tmp_path: Path) -> None:
    source = Drawn()
    data = prepared(source, source.index(tmp_path), "image", IMAGE, structure=None, cache=tmp_path)
    assert data.images.shape == (COUNT, 32, 32, 1)
    assert data.targets is None
    for row in (0, *range(2, COUNT)):
        assert (data.images[row] == fit_image(random_image(row), IMAGE)).all()
        assert data.shapes[row].tolist() == [40 + row, 60]
    assert not data.images[1].any()
    assert isinstance(data.images, np.memmap)
    assert not data.images.flags.writeable


def test_every_target_is_read_and_missing_rows_are_zero_or_nan(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    for target, expected in (
        ("labels", [1.0]),
        ("centre", [0.25, 0.5]),
        ("box", [0.25, 0.0, 0.5, 1.0]),
        ("box_mask", np.pad(np.ones((1, 32, 16)), ((0, 0), (0, 0), (8, 8)))),
        ("mask", fit_masks(source.masks(2), IMAGE)),
    ):
        targets = prepared(source, index, target, IMAGE, structure=None, cache=tmp_path).targets
        assert targets is not None
        assert np.array_equal(targets[2], expected)
        for missing in (0, 1):
            assert np.isnan(targets[missing]).all() if targets.dtype == np.float32 else not targets[missing].any()


def test_the_truth_is_resized_at_its_own_size_from_the_original(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    masks = truth(source, index, 48, tmp_path)[[5, 6]]
    assert masks.shape == (2, 48, 48)
    assert (masks[0] == fit_masks(source.masks(5), ImageSettings(size=48))).all()
    assert source.read == 0


def test_native_truth_has_the_size_of_each_image(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    masks = truth(source, index, NATIVE, tmp_path)
    for row in range(2, COUNT):
        np.testing.assert_array_equal(masks[[row]], source.masks(row)[None])
    ((folder, size),) = truth_entry(index, NATIVE, tmp_path).items()
    assert size == sum(source.masks(row).size for row in range(2, COUNT))
    assert (folder / "masks.npy").stat().st_size == pytest.approx(size, abs=256)


def test_a_letterbox_can_be_undone_from_the_shapes(tmp_path: Path) -> None:
    source = Drawn()
    settings = ImageSettings(size=32, fit="letterbox")
    data = prepared(source, source.index(tmp_path), "mask", settings, structure=None, cache=tmp_path)
    assert data.targets is not None
    height, width = data.shapes[4].tolist()
    fit = Fit(height=height, width=width, shape=(32, 32), fit="letterbox")
    assert fit.crop(data.images[4, ..., 0]).all()
    assert data.images[4].astype(bool).sum() == fit.crop(data.images[4, ..., 0]).size


def test_prepared_images_are_not_read_again_and_are_shared_between_targets(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    prepared(source, index, "mask", IMAGE, structure=None, cache=tmp_path)
    assert source.read == COUNT - 1
    again = Drawn()
    prepared(again, index, "mask", IMAGE, structure=None, cache=tmp_path)
    prepared(again, index, "labels", IMAGE, structure=None, cache=tmp_path)
    assert again.read == 0
    assert len(entries(tmp_path)) == 3


@pytest.mark.parametrize(
    "settings",
    [ImageSettings(size=48), ImageSettings(size=32, channels=3), ImageSettings(size=32, fit="letterbox")],
)
def test_other_settings_have_other_entries(tmp_path: Path, settings: ImageSettings) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    prepared(source, index, "image", IMAGE, structure=None, cache=tmp_path)
    prepared(source, index, "image", settings, structure=None, cache=tmp_path)
    assert len(entries(tmp_path)) == 2


def test_other_content_annotation_faults_or_order_have_other_entries(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    changed = list(index.content)
    changed[5] = "new"
    others = [
        replace(index, content=changed),
        replace(index, faults=["", "truncated", "new fault", *[""] * (COUNT - 3)]),
        replace(index, ids=[*index.ids[:2], index.ids[3], index.ids[2], *index.ids[4:]]),
        replace(index, annotation_digests={**index.annotation_digests, "masks": ["", *changed[1:]]}),
        replace(index, classes=("high", "low")),
    ]
    for other in [index, *others]:
        prepared(source, other, "mask", IMAGE, structure=None, cache=tmp_path)
    assert len(entries(tmp_path)) == 2 * 6 - 2


def test_an_error_while_reading_is_raised_and_leaves_no_files(tmp_path: Path) -> None:
    source = Drawn(broken=7)
    index = source.index(tmp_path)
    with pytest.raises(DataError, match="it broke"):
        prepared(source, index, "image", IMAGE, structure=None, cache=tmp_path)
    assert entries(tmp_path) == []
    prepared(Drawn(), index, "image", IMAGE, structure=None, cache=tmp_path)
    assert len(entries(tmp_path)) == 1


def test_the_least_recently_used_entries_are_removed_over_budget(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    budget = 3 * (COUNT * 32 * 32 + 1000)

    def opened(number: int) -> np.ndarray:
        other = replace(index, content=[f"{number} {row}" for row in range(COUNT)])
        return prepared(source, other, "image", IMAGE, structure=None, cache=tmp_path, budget_bytes=budget).images

    first = opened(0)
    before = first.copy()
    for number in (1, 2, 0):
        opened(number)
    assert len(entries(tmp_path)) == 3
    opened(3)
    read = source.read
    for number in (0, 2, 3):
        opened(number)
    assert source.read == read
    opened(1)
    assert source.read == read + COUNT - 1
    for number in (5, 6, 7):
        opened(number)
    assert len(entries(tmp_path)) == 3
    assert (first == before).all()


def test_entries_just_opened_are_kept_over_budget(tmp_path: Path) -> None:
    source = Drawn()
    index = source.index(tmp_path)
    prepared(source, index, "mask", IMAGE, structure=None, cache=tmp_path, budget_bytes=1)
    assert len(entries(tmp_path)) == 2


def test_a_disk_too_small_is_refused_before_reading(tmp_path: Path) -> None:
    layout = {"images": ((2**50,), np.uint8)}
    with pytest.raises(DataError, match=r"need 1048576.0 GiB in .*; allowed: .*--cache"):
        arrays.open_entry(tmp_path / "big", layout, lambda _: None, budget_bytes=2**60)
    assert not (tmp_path / "big").exists()


def test_the_least_recently_used_entries_are_removed_if_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, size = 10_000, 2_000  # the header of an array is 128 bytes of that

    def free(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=disk - sum(file.stat().st_size for file in tmp_path.rglob("*.npy")))

    def fill(name: str, count: int = size - 128) -> None:
        layout = {"images": ((count,), np.uint8)}
        arrays.open_entry(tmp_path / name, layout, lambda _: None, budget_bytes=2**40)
        os.utime(tmp_path / name, (clock := next(times), clock))

    times = iter(range(100, 200))
    monkeypatch.setattr(shutil, "disk_usage", free)
    for number in range(5):
        fill(f"{number}")
    with pytest.raises(DataError, match="allowed: what fits"):
        fill("large", 20_000)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 5
    fill("next")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"1", "2", "3", "4", "next"}


def test_threads_that_need_the_same_entry_write_it_once(tmp_path: Path) -> None:
    source = Drawn(pause=0.01)
    index = source.index(tmp_path)

    def work() -> None:
        prepared(source, index, "image", IMAGE, structure=None, cache=tmp_path)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.read == COUNT - 1


PROCESS = f"""
import hashlib, pathlib, runpy, sys
test = runpy.run_path({__file__!r})
cache, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])
source = test["Drawn"](pause=pause, log=cache / "log")
index = source.index(cache)
data = test["prepared"](source, index, "mask", test["IMAGE"], structure=None, cache=cache)
print(hashlib.sha256(data.images.tobytes() + data.targets.tobytes()).hexdigest())
"""


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(cache), str(pause)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        text=True,
    )


def rows_read(cache: Path) -> int:
    log = cache / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_processes_that_need_the_same_entry_write_it_once_with_equal_content(tmp_path: Path) -> None:
    processes = [start(tmp_path, 0.05) for _ in range(2)]
    prints = {process.communicate(timeout=60)[0] for process in processes}
    assert len(prints) == 1
    assert all(process.returncode == 0 for process in processes)
    assert rows_read(tmp_path) == COUNT - 1
    assert len(entries(tmp_path)) == 2


def test_a_killed_process_leaves_a_usable_cache(tmp_path: Path) -> None:
    process = start(tmp_path, 0.5)
    deadline = time.monotonic() + 60
    while rows_read(tmp_path) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.suffix for path in entries(tmp_path)] == [".part"]
    source = Drawn()
    data = prepared(source, source.index(tmp_path), "image", IMAGE, structure=None, cache=tmp_path)
    assert source.read == COUNT - 1
    assert (data.images[3] == fit_image(random_image(3), IMAGE)).all()
    assert [path.suffix for path in entries(tmp_path)] == [""]


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_are_kept(tmp_path: Path) -> None:
    source = Drawn()
    cache = tmp_path / "prepared"
    for name in ("dead.part", "living.part"):
        (cache / name).mkdir(parents=True)
    with FileLock(cache / "living.lock"):
        prepared(source, source.index(tmp_path), "image", IMAGE, structure=None, cache=tmp_path)
    assert (cache / "living.part").exists()
    assert not (cache / "dead.part").exists()


def test_a_file_changed_after_it_was_indexed_is_not_prepared(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "own")
    source = open_source(FolderSettings(root=root))
    index = source.index(tmp_path / "cache")
    before = entries(tmp_path / "cache")
    changed = sorted((root / "images").iterdir())[0]
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(DataError, match="changed since it was indexed; allowed: unchanged files"):
        prepared(source, index, "image", ImageSettings(size=16), structure=None, cache=tmp_path / "cache")
    assert entries(tmp_path / "cache") == before


def test_images_resized_by_indexing_are_not_decoded_again_and_not_stored_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, settings = tmp_path / "cache", FolderSettings(root=write_folder(tmp_path / "own"))
    source, again = open_source(settings), open_source(settings)
    index = source.index(cache, fits=[IMAGE])
    expected = [fit_image(source.image(row), IMAGE) for row in range(len(index))]
    monkeypatch.setattr(files, "read", lambda path, _: pytest.fail(f"{path} was decoded again"))
    data = prepared(source, index, "mask", IMAGE, structure=None, cache=cache)
    assert np.array_equal(data.images, expected)
    assert again.index(cache) is not None
    assert again.fitted(0, IMAGE) is None
