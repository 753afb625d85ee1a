"""Masks of volumes in the format of their images."""

from pathlib import Path

import numpy as np
import pytest

from datasets.decoding.decode import read
from datasets.decoding.mask_volumes import mask_suffix, write_mask_volume
from datasets.settings import VolumeSettings
from tests.support.volumes import write_nifti, write_stack


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("suffix", [".tif", ".nii.gz"])
def test_written_slices_are_read_back_along_any_axis(tmp_path: Path, axis: int, suffix: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 4, (7, 6, 5)).astype(np.uint8)
    image, mask = tmp_path / f"image{suffix}", tmp_path / f"mask{suffix}"
    if suffix == ".tif":
        write_stack(image, voxels.transpose(2, 1, 0))
    else:
        write_nifti(image, voxels, orientation="RAS")
    slices = read(image, "ids", VolumeSettings(axis=axis))
    write_mask_volume(slices, axis, image, mask)
    assert np.array_equal(read(mask, "ids", VolumeSettings(axis=axis)), slices)
    assert np.array_equal(read(mask, "ids", VolumeSettings(axis=2)), voxels.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("image", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("a.NII", ".nii"), ("a.tiff", ".tif"), ("a.dcm", ".tif")],
)
def test_the_suffix_of_a_mask_is_that_of_its_image(image: str, suffix: str) -> None:
    assert mask_suffix(Path(image)) == suffix
