"""Cost of data on a node: memory of several processes with one cache, and a large index."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from datasets.cache.stored_index import index_path
from datasets.sources import ChexpertSettings, open_source
from datasets.sources.chexpert import LABELS
from tests.bench.figure import Figure, seconds
from tests.bench.inputs import write_files
from tests.support.chexpert import RELEASE, write_table
from tests.support.pictures import picture, save

PROCESSES = (1, 2, 4)
IMAGES, ORIGINAL, SIZE = 256, 64, 512
"""Small files, large arrays: 128 MiB of images and masks."""
CHEXPERT = 224_316
LINKS = 20_000
"""Links to one file; some file systems allow 65,000."""


def memory(*, quick: bool) -> Iterator[Figure]:
    """Measure the memory that processes add when they open a prepared data set and read all of it."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        root = Path(place)
        write_files(root / "data", "png", images=IMAGES // (4 if quick else 1), side=ORIGINAL)
        write_files(root / "warm-up", "png", images=8, side=ORIGINAL)
        memory_growth(1, root)  # creates the cache
        needed = {count: [memory_growth(count, root) for _ in range(1 if quick else 3)] for count in PROCESSES}
    for count in PROCESSES[1:]:
        shares = [several / single for several, single in zip(needed[count], needed[1], strict=True)]
        goal = 1.2 if count == max(PROCESSES) else None
        yield Figure(name=f"memory for the data, {count} processes against 1", unit="ratio", values=shares, goal=goal)
    yield Figure(name="memory for the data, 1 process", unit="MiB", values=needed[1])


def memory_growth(count: int, root: Path) -> float:
    """Return the total memory growth of processes in MiB; shared memory counts once."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [context.Process(target=_reader, args=(theirs, root)) for _, theirs in pipes]
    for process in processes:
        process.start()
    totals = []
    for _ in range(2):
        for ours, _ in pipes:
            ours.recv()
        totals.append(sum(psutil.Process(process.pid).memory_full_info().pss for process in processes))
        for ours, _ in pipes:
            ours.send("go")
    for process in processes:
        process.join()
    return (totals[1] - totals[0]) / 2**20


def _reader(pipe: Connection, root: Path) -> None:
    _read(root / "warm-up")  # libraries are not counted as data
    pipe.send("ready")
    pipe.recv()
    data = _read(root / "data")
    pipe.send(len(data))
    pipe.recv()


def _read(root: Path) -> tuple[object, ...]:
    """Open a data set as a stage does, read all of it, and return the objects that keep it open."""
    from datasets.loading.batches import Batches
    from datasets.loading.examples import WholeImages
    from datasets.loading.prepare import prepared
    from datasets.settings import ImageSettings
    from datasets.sources import FolderSettings

    source = open_source(FolderSettings(root=root))
    index = source.index(root / "index")
    image = ImageSettings(size=SIZE)
    arrays = prepared(source, index, "mask", image, structure=None, cache=root / "cache")
    for _ in Batches(WholeImages(arrays.images, arrays.targets, range(len(index))), batch_size=8, seed=0).epoch(0):
        pass
    return source, index, arrays


def large_index(*, quick: bool) -> Iterator[Figure]:
    """Measure the opening of an index of CheXpert's size (quick: 10,000 rows) whose files were read before."""
    count = 10_000 if quick else CHEXPERT
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        root, cache = Path(place) / RELEASE, Path(place) / "cache"
        _write_chexpert(root, count)
        read = seconds(lambda: _open(root, cache, count))
        values = [seconds(lambda: _open(root, cache, count)) for _ in range(3 if quick else 5)]
    yield Figure(name=f"first reading of {count:,} files", unit="s", values=[read])
    why = f"each of {count:,} files is looked up, to see whether it changed"
    yield Figure(name=f"index of {count:,} rows opened", unit="s", values=values, goal=None if quick else 1.0, why=why)


def _open(root: Path, cache: Path, count: int) -> None:
    settings = ChexpertSettings(root=root)
    assert len(open_source(settings).index(cache)) == count
    assert index_path(cache, settings).exists(), "no index is kept: each opening reads all files"


def _write_chexpert(root: Path, count: int) -> None:
    """Write the layout with few small images under very many names."""
    rows: list[dict[str, object]] = []
    for number in range(count):
        path = f"train/patient{number // 2 + 1:06d}/study1/view{number % 2 + 1}_frontal.jpg"
        file = root / path
        if number % LINKS == 0:
            original = file
            save(picture(number, width=32, height=32), file)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(original, file)
        rows.append({"Path": f"{RELEASE}/{path}", "Frontal/Lateral": "Frontal", "AP/PA": "AP", LABELS[0]: "1.0"})
    for name, written in {"train.csv": rows, "valid.csv": []}.items():
        write_table(root / name, written)
        os.utime(root / name, (0, 0))  # no index is stored for tables that were just written
