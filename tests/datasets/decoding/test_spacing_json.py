"""Spacing in a JSON file beside a TIFF image."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from datasets.decoding.decode import examine_file
from datasets.decoding.spacing_json import with_spacing
from datasets.errors import DataError
from datasets.settings import VolumeSettings


def image(folder: Path, document: object) -> Path:
    path = folder / "case_0000.tif"
    tifffile.imwrite(path, np.zeros((4, 8, 6), np.uint8), photometric="minisblack")
    (folder / "case.json").write_text(json.dumps(document), encoding="utf-8")
    return path


def spacing_of(path: Path) -> tuple[float, ...]:
    return tuple(with_spacing(examine_file(path, "image", VolumeSettings()), path).geometry.spacing)


def test_the_spacing_of_pages_height_and_width_is_read(tmp_path: Path) -> None:
    assert spacing_of(image(tmp_path, {"spacing": [5.0, 0.7, 0.6]})) == (5.0, 0.7, 0.6)


@pytest.mark.parametrize("document", [{"shapes": []}, [1, 2], "text"])
def test_other_json_files_beside_an_image_are_not_read(tmp_path: Path, document: object) -> None:
    path = image(tmp_path, document)
    assert spacing_of(path) == tuple(examine_file(path, "image", VolumeSettings()).geometry.spacing)


@pytest.mark.parametrize("spacing", [[5.0, 0.0, 0.7], [1.0], "1", None])
def test_a_malformed_spacing_is_refused(tmp_path: Path, spacing: object) -> None:
    with pytest.raises(DataError, match=r"case\.json: spacing is .*; allowed: three numbers above 0"):
        spacing_of(image(tmp_path, {"spacing": spacing}))
