"""Large images are processed in bands of rows with little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from datasets.large import (
    BAND_PIXELS,
    LARGE_PIXELS,
    by_bands,
    copy_into,
    is_large,
    release,
    row_bands,
    temporary_array,
)  # fmt: skip
from tests.support.slides import write_slides

ROOT = Path(__file__).parents[2]
SIDE = 10_000
MEASURED = """
import resource, sys
from pathlib import Path
import numpy as np
from datasets.checks.contact import draw_contact
from datasets.loading.native import native_images
from datasets.loading.patches import RandomPatches
from datasets.settings import ImageSettings, PatchSettings
from datasets.sources import FolderSettings, open_source

def use(root):
    source = open_source(FolderSettings(root=root))
    index = source.index(root / "cache")
    image = ImageSettings(fit="patch", channels=3)
    arrays = native_images(source, index, "mask", image, cache=root / "cache")
    foreground, settings = arrays.foreground, PatchSettings()
    patches = RandomPatches(arrays.images, arrays.masks, foreground, [0], shape=(256, 256), settings=settings)
    for epoch in range(200):
        patches.draw(np.arange(1), (0, epoch))
    draw_contact(source, index, [0], root / "contact.png")
    return index

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

use(Path(sys.argv[1]))  # loads all libraries
before = peak()
index = use(Path(sys.argv[2]))
print(index.shape(0), index.shows(0) == frozenset(index.classes), peak() - before)
"""


def test_bands_cover_the_rows_once_and_small_images_have_one_band() -> None:
    assert list(row_bands(100, 50)) == [slice(0, 100)]
    for height, width, step in ((9000, 8000, 1), (70_000, 1000, 256), (1, 2**27, 1)):
        bands = list(row_bands(height, width, step=step))
        assert [row for band in bands for row in range(height)[band]] == list(range(height))
        assert all(band.start % step == 0 for band in bands)
        assert all((band.stop - band.start) * width <= max(BAND_PIXELS, width * step) for band in bands)
    assert not is_large(1, LARGE_PIXELS)
    assert is_large(2, LARGE_PIXELS)


def test_functions_of_pixels_are_equal_by_bands() -> None:
    pixels = temporary_array((8200, 8200))
    pixels[::7, ::3] = 9
    doubled = by_bands(lambda part: np.stack([part, part * 2], axis=2), pixels)
    assert isinstance(doubled, np.memmap)
    assert doubled.shape == (8200, 8200, 2)
    assert doubled[7, 3].tolist() == [9, 18]
    assert int(doubled[..., 1].sum()) == 2 * int(pixels.sum())
    small = by_bands(lambda part: part + 1, np.zeros((2, 3), np.uint8))
    assert not isinstance(small, np.memmap)


def test_released_arrays_keep_their_values() -> None:
    array = temporary_array((3, 3000, 3000))
    values = np.random.default_rng(0).integers(0, 256, array.shape, dtype=np.uint8)
    copy_into(array, values)
    release(array)
    np.testing.assert_array_equal(array, values)
    release(values)  # an array without a file is not released
    assert values.any()


def test_indexing_and_caching_a_large_image_needs_less_memory_than_its_bytes(tmp_path: Path) -> None:
    roots = [write_slides(tmp_path / name, 1, side) for name, side in (("small", 600), ("large", SIDE))]
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, roots)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shape, shows, growth = run.stdout.rsplit(maxsplit=2)
    assert (shape, shows) == (f"({SIDE}, {SIDE})", "True")
    assert int(growth) < SIDE * SIDE * 3
