"""Predictions of large images are written in parts, with the content of predictions written at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from datasets.decoding.decode import read
from models.tasks.base import Outputs
from study.errors import ConfigError
from study.inference.inputs import InputImage, check_outputs
from study.inference.large_outputs import MAX_OVERLAY_SIDE, write_large
from study.inference.outputs import PNG, TIFF, Precision, PredictionWriter
from study.training.prediction.bands import Band

SIZE = (5000, 700)


def bands(channels: int) -> Iterator[Band]:
    generator = torch.Generator().manual_seed(0)
    for top in range(0, SIZE[0], 800):
        rows = min(800, SIZE[0] - top)
        small = torch.rand(channels, rows // 50, SIZE[1] // 50, generator=generator)
        yield Band(top, small.repeat_interleave(50, dim=1).repeat_interleave(50, dim=2))


@pytest.mark.parametrize("exclusive", [True, False])
def test_files_equal_those_of_predictions_written_at_once(tmp_path: Path, exclusive: bool) -> None:
    writer = PredictionWriter(
        outputs=Outputs(names=("a", "b c"), exclusive=exclusive), threshold=0.5, overlay=True,
        probabilities=Precision.float16,
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    probabilities = torch.cat([band.probabilities for band in bands(2 + exclusive)], dim=1)
    images = [InputImage(file=tmp_path / "a.tif", output=tmp_path / name / "a") for name in ("whole", "large")]
    expected = writer.write(images[0], pixels, probabilities)
    masks = write_large(writer, images[1], pixels, bands(2 + exclusive), SIZE)
    np.testing.assert_array_equal(masks, expected)
    suffixes = zip(writer.mask_suffixes(PNG), writer.mask_suffixes(TIFF), strict=True)
    for small, large in suffixes:
        with tifffile.TiffFile(images[1].output_file(large)) as file:
            assert file.pages.first.is_tiled
            values = file.pages.first.asarray()
        np.testing.assert_array_equal(values, read(images[0].output_file(small), "image"))
    arrays = [np.load(image.output_file(".npz")) for image in images]
    for name in ("probabilities", "names"):
        np.testing.assert_array_equal(arrays[1][name], arrays[0][name])
    overlay = read(images[1].output_file("_overlay.png"), "image")
    assert max(overlay.shape) <= MAX_OVERLAY_SIDE
    assert {path.name for path in (tmp_path / "large").iterdir()} == {
        images[1].output_file(suffix).name for suffix in writer.suffixes(TIFF)
    }


def test_a_mask_that_would_replace_an_image_is_refused(tmp_path: Path) -> None:
    writer = PredictionWriter(outputs=Outputs(names=("a",), exclusive=True), threshold=0.5)
    image = InputImage(file=tmp_path / "a.tif", output=tmp_path / "a")
    check_outputs([image], lambda _: writer.suffixes(PNG))
    with pytest.raises(ConfigError, match="would replace the image"):
        check_outputs([image], lambda _: writer.suffixes(TIFF))
