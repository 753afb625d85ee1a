"""Speed of input: from files and from the prepared cache, compared with albumentations alone."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from PIL import Image

from datasets.augment_settings import AugmentSettings
from datasets.decoding.decode import read
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import WholeImages
from datasets.loading.prepare import prepared
from datasets.settings import ImageSettings
from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from tests.bench.figure import Figure, cpu_seconds, interleaved, ratio, seconds
from tests.support.blobs import blob
from tests.support.dicom import write_dicom

MILD = AugmentSettings(rotate=7, scale=0.1, shift=0.05, brightness=0.2, contrast=0.2)
SIZE, ORIGINAL, BATCH, CLASSES = 64, 768, 8, ["blob"]
FORMATS = ("png", "jpg", "dcm")


@dataclass(frozen=True, kw_only=True)
class Files:
    """A folder of images of one format, and its index."""

    source: Source
    index: Index
    root: Path


def rates(*, quick: bool) -> Iterator[Figure]:
    """Measure augmented epochs: the first, with preparation, and later ones, against decoding all files again."""
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        for suffix in FORMATS[:1] if quick else FORMATS:
            files = write_files(Path(place) / suffix, suffix, images=24 if quick else 64)
            first, later, decoded = _first(files), _later(files), _decode_all(files)
            sides = {"first": lambda: seconds(first), "later": lambda: seconds(later), "anew": lambda: seconds(decoded)}  # noqa: B023
            results = interleaved(sides, 3 if quick else 5)
            yield ratio(f"first epoch, cache made from {suffix}, against files", results["anew"], results["first"])
            yield ratio(f"later epochs from the cache against {suffix} files", results["anew"], results["later"])
            rate = [len(files.index) / elapsed for elapsed in results["anew"]]
            yield Figure(name=f"images a second from {suffix} files", unit="1/s", values=rate, better="higher")
    for side, count in ((64, 4096), (256, 1024)):  # about one second each
        yield from _against_albumentations(side, repeats=3 if quick else 5, count=count // 8 if quick else count)


def write_files(root: Path, suffix: str, *, images: int, side: int = ORIGINAL) -> Files:
    """Write images with a mask each in the layout of a user's own folder."""
    for number in range(images):
        pixels, mask = blob(number, width=side, height=side)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        name = f"{number:05d}"
        if suffix == "dcm":
            write_dicom(root / "images" / f"{name}.dcm", pixels.astype(np.uint16) * 16)
        else:
            Image.fromarray(pixels).save(root / "images" / f"{name}.{suffix}")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    source = open_source(FolderSettings(root=root))
    return Files(source=source, index=source.index(root / "index"), root=root)


def _batches(files: Files, cache: Path) -> Batches:
    data = prepared(
        files.source, files.index, "mask", ImageSettings(size=SIZE), structure=None, cache=cache
    )  # fmt: skip
    augmenter = Augmenter(MILD, "mask", (SIZE, SIZE))
    return Batches(
        WholeImages(data.images, data.targets, range(len(files.index)), augmenter), batch_size=BATCH, seed=0
    )  # fmt: skip


def _first(files: Files) -> Callable[[], None]:
    def epoch() -> None:
        with tempfile.TemporaryDirectory(prefix="b-") as cache:
            _exhaust(_batches(files, Path(cache)))

    return epoch


def _later(files: Files) -> Callable[[], None]:
    batches = _batches(files, files.root / "cache")
    return lambda: _exhaust(batches)


def _exhaust(batches: Batches) -> None:
    for _ in batches.epoch(1):
        pass


def _decode_all(files: Files) -> Callable[[], None]:
    """Return an epoch of one process that decodes, resizes and augments every file."""
    image_files, mask_files = (sorted((files.root / folder).iterdir()) for folder in ("images", "masks"))
    change = composed()

    def epoch() -> None:
        for image_file, mask in zip(image_files, mask_files, strict=True):
            pixels, truth = _decoded(image_file), cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
            image = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[..., None]
            change(image=image, mask=cv2.resize(truth, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST))

    return epoch


def _decoded(path: Path) -> np.ndarray:
    if path.suffix == ".dcm":
        return read(path, "image")
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def composed() -> A.Compose:
    """Return the transforms of `MILD` in plain albumentations."""
    return A.Compose([
        A.Affine(
            rotate=(-7, 7), scale=(0.9, 1.1), translate_percent=(-0.05, 0.05), keep_ratio=True,
            mask_interpolation=cv2.INTER_NEAREST, p=1,
        ),
        A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=1),
    ])  # fmt: skip


def _against_albumentations(side: int, *, repeats: int, count: int) -> Iterator[Figure]:
    """Compare epochs of batches with the transforms alone, on arrays in memory with two masks each."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    masks = random.integers(0, 2, (count, 2, side, side), dtype=np.uint8)
    batches = Batches(
        WholeImages(images, masks, range(count), Augmenter(MILD, "mask", (side, side))), batch_size=BATCH, seed=0,
    )  # fmt: skip
    change = composed()

    def alone() -> None:
        for image, planes in zip(images, masks, strict=True):
            change(image=image, masks=planes)

    sides = {"alone": lambda: cpu_seconds(alone), "batches": lambda: cpu_seconds(lambda: _exhaust(batches))}
    results = interleaved(sides, repeats)
    why = "each image has random numbers of its own, so that it is the same whatever runs beside it, and is copied once"
    name = f"later epochs against albumentations alone, {side} px"
    yield ratio(name, results["alone"], results["batches"], 0.9, why=why)
    rate = [count / elapsed for elapsed in results["batches"]]
    yield Figure(name=f"images a second of later epochs, {side} px", unit="1/s", values=rate, better="higher")
