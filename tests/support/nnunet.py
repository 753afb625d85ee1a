"""Raw data sets of nnU-Net: volumes of several channels, or images of 2-D."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.pictures import picture, save
from tests.support.volumes import SHAPE, ct_volume, write_nifti, write_stack

CHANNELS = ("FLAIR", "T1w", "t1gd", "T2w")
LABELS: Mapping[str, Any] = {"background": 0, "organ": 1, "lesion": 2}
REGIONS: Mapping[str, Any] = {"background": 0, "whole": [1, 2], "core": 2}


def description(cases: int, **changes: object) -> dict[str, Any]:
    """Return `dataset.json` of version 2; None removes a key."""
    document = {
        "channel_names": {str(number): name for number, name in enumerate(CHANNELS)},
        "labels": dict(LABELS), "numTraining": cases, "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }  # fmt: skip
    return {key: value for key, value in (document | changes).items() if value is not None}


def write_description(root: Path, document: object) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(document), encoding="utf-8")


def write_nnunet(
    root: Path, *, cases: int = 4, tests: int = 2, shape: Sequence[int] = SHAPE, labels: Mapping[str, Any] = LABELS
) -> Path:
    """Write a data set like those of the Medical Segmentation Decathlon: four channels, training and test cases."""
    write_description(root, description(cases, labels=dict(labels)))
    for number in range(cases + tests):
        part = "Tr" if number < cases else "Ts"
        values, ids = ct_volume(number, shape)
        for channel in range(len(CHANNELS)):
            noisy = values + np.random.default_rng(channel).normal(0, 20 * channel, shape)
            name = f"brain_{number:03d}_{channel:04d}.nii.gz"
            write_nifti(root / f"images{part}" / name, noisy.astype(np.float32), orientation="RAS")
        write_nifti(root / f"labels{part}" / f"brain_{number:03d}.nii.gz", ids, orientation="RAS")
    return root


def write_decathlon(root: Path, *, cases: int = 4, shape: Sequence[int] = SHAPE, channels: int = 4) -> Path:
    """Write a data set as the Medical Segmentation Decathlon publishes it: images (x, y, z, channel) and version 1."""
    names = {str(number): name for number, name in enumerate(CHANNELS)}
    labels = {"0": "background", "1": "organ", "2": "lesion"}
    write_description(root, {"modality": names, "labels": labels, "numTraining": cases, "tensorImageSize": "4D"})
    for number in range(cases):
        values, ids = ct_volume(number, shape)
        noise = [np.random.default_rng(channel).normal(0, 20 * channel, shape) for channel in range(channels)]
        stacked = np.stack([values * (channel + 1) + part for channel, part in enumerate(noise)], axis=-1)
        name = f"BRATS_{number:03d}.nii.gz"
        write_nifti(root / "imagesTr" / name, stacked.astype(np.float32), orientation="RAS")
        write_nifti(root / "labelsTr" / name, ids, orientation="RAS")
    return root


def write_nnunet_tiff(
    root: Path,
    *,
    cases: int = 3,
    pages: int = 5,
    spacing: Any = (5.0, 0.7, 0.6),  # noqa: ANN401 - also malformed
) -> Path:
    """Write stacks of TIFF pages, or single pages if `pages` is 0, with JSON files that state a spacing."""
    write_description(
        root, description(cases, channel_names={"0": "EM"}, file_ending=".tif", labels={"background": 0, "a": 1})
    )
    for number in range(cases):
        stack = np.stack([picture(10 * number + page) for page in range(max(pages, 1))])
        for folder, name, pixels in (("imagesTr", "_0000", stack), ("labelsTr", "", (stack > 128).astype(np.uint8))):
            path = root / folder / f"cell_{number:03d}{name}.tif"
            write_stack(path, pixels) if pages else save(pixels[0], path)
            if spacing is not None:
                path.with_name(f"cell_{number:03d}.json").write_text(json.dumps({"spacing": spacing}))
    return root


def write_nnunet_2d(root: Path, *, colour: bool = False, cases: int = 4) -> Path:
    """Write a data set of PNG images, with its three colours in one file."""
    names = {"0": "R", "1": "G", "2": "B"} if colour else {"0": "grey"}
    write_description(
        root, description(cases, channel_names=names, file_ending=".png", labels={"background": 0, "a": 1})
    )
    for number in range(cases):
        grey = picture(number)
        pixels = np.dstack([grey, 255 - grey, grey // 2]) if colour else grey
        save(pixels, root / "imagesTr" / f"cell_{number:03d}_0000.png")
        save((grey > 128).astype(np.uint8), root / "labelsTr" / f"cell_{number:03d}.png")
    return root
