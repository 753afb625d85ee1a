"""Raw data sets of nnU-Net: volumes of several channels, or images of 2-D."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.pictures import picture, save
from tests.support.volumes import SHAPE, ct_volume, write_nifti

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
