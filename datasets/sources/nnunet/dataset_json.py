"""`dataset.json` of nnU-Net, of version 1 and 2, and `splits_final.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES
from datasets.decoding.text import read_json
from datasets.errors import DataError
from datasets.source import IGNORE

NAME: Final = "dataset.json"
SPLITS: Final = "splits_final.json"
FILE: Final = "the file of nnU-Net"
BACKGROUND: Final = "background"
IGNORED: Final = "ignore"
VERSION_1_ENDING: Final = ".nii.gz"
"""File ending where version 1 of the format states none."""


@dataclass(frozen=True, kw_only=True)
class DatasetJson:
    """The contents of `dataset.json`.

    Attributes:
        channels: Names of the channels, `_0000` first.
        classes: Names of the foreground classes in order of their ids.
        regions: For overlapping classes: the ids that each class consists of; empty for exclusive classes.
        ignored: Ids of unlabelled pixels.
        cases: Number of annotated training cases.
        ending: Ending of all image and label files, such as `.nii.gz`.
        is_version_1: Whether channels are called `modality`, as in the Medical Segmentation Decathlon.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    regions: tuple[tuple[int, ...], ...]
    ignored: tuple[int, ...]
    cases: int
    ending: str
    is_version_1: bool


def read_dataset_json(root: Path) -> DatasetJson:
    """Read and check the description of a data set. Raises `DataError` for the first fault."""
    path = root / NAME
    document = read_json(path, FILE)
    if not isinstance(document, dict):
        raise DataError(f"{path} is no JSON object; allowed: that of a raw data set of nnU-Net; restore it")
    if "dataset" in document:
        raise DataError(
            f"{path} lists its files under `dataset`; allowed: files in imagesTr and labelsTr; move them there"
        )
    ids, ignored = _split_ignored(_labels(document, path), path)
    overlapping = any(len(region) > 1 for region in ids.values()) or _has_regions(document)
    _check_ids(ids, ignored, path)
    names = tuple(ids) if overlapping else tuple(sorted(ids, key=lambda name: ids[name][0]))
    return DatasetJson(
        channels=_channels(document, path), classes=names,
        regions=tuple(ids[name] for name in names) if overlapping else (), ignored=ignored,
        cases=_number_of_cases(document, path), ending=_ending(document, path),
        is_version_1="channel_names" not in document,
    )  # fmt: skip


def read_splits(root: Path, fold: int, cases: Sequence[str]) -> frozenset[str]:
    """Return the validation cases of a fold of `splits_final.json`. Raises `DataError`."""
    path = root / SPLITS
    folds = read_json(path, FILE)
    if not isinstance(folds, list) or not all(
        isinstance(part, dict) and {"train", "val"} <= set(part) for part in folds
    ):
        raise DataError(f"{path} is no list of folds with `train` and `val`; allowed: the file of nnU-Net; restore it")
    if fold >= len(folds):
        raise DataError(f"{path} has {len(folds)} folds; allowed for `fold`: 0 to {len(folds) - 1}; change it")
    train, validation = (frozenset(map(str, folds[fold][part])) for part in ("train", "val"))
    unknown = sorted((train | validation).difference(cases))
    if unknown:
        raise DataError(
            f"{path}: fold {fold} names {unknown[0]} ({len(unknown)} such cases), which labelsTr lacks; allowed: cases "
            "of the data set; correct it"
        )
    if train & validation:
        raise DataError(
            f"{path}: fold {fold} has {min(train & validation)} in `train` and in `val`; allowed: one of them; correct "
            "it"
        )
    return validation


def _labels(document: Mapping[str, Any], path: Path) -> dict[str, tuple[int, ...]]:
    """Return the ids of each label; version 1 maps ids to names, version 2 names to ids or to lists of ids."""
    labels = document.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise DataError(f'{path} has no labels; allowed: such as {{"background": 0, "liver": 1}}; add them')
    if all(str(key).isdigit() and isinstance(name, str) for key, name in labels.items()):
        labels = {key: BACKGROUND if int(key) == 0 else name for key, name in labels.items()}  # of any spelling
        names = list(labels.values())
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise DataError(f"{path}: two labels are called '{repeated}'; allowed: different names; rename one")
        return {name: (int(key),) for key, name in labels.items()}
    return {str(name): _ids(name, value, path) for name, value in labels.items()}


def _ids(name: str, value: object, path: Path) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(number, int) and not isinstance(number, bool) for number in values):
        raise DataError(
            f"{path}: label '{name}' is {json.dumps(value)}; allowed: a whole number, or a list of these for a region; "
            "correct it"
        )
    return tuple(values)


def _split_ignored(
    labels: dict[str, tuple[int, ...]], path: Path
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Return the ids of the foreground classes, and those of unlabelled pixels."""
    background = labels.pop(BACKGROUND, None)
    if background != (0,):
        found = "missing" if background is None else ", ".join(map(str, background))
        raise DataError(
            f"{path}: the label '{BACKGROUND}' is {found}; allowed: 0; number the labels from 0, the background"
        )
    ignored = labels.pop(IGNORED, ())
    if not labels:
        raise DataError(f"{path} has only the background; allowed: one class or more; add it")
    return labels, ignored


def _check_ids(ids: Mapping[str, tuple[int, ...]], ignored: tuple[int, ...], path: Path) -> None:
    """Raise `DataError` unless the ids are 1, 2, ... and the ignored one is the last."""
    used = sorted({number for region in ids.values() for number in region})
    single = [region[0] for region in ids.values() if len(region) == 1]
    if used != list(range(1, len(used) + 1)) or used[-1] >= IGNORE:
        raise DataError(
            f"{path}: the labels are {', '.join(map(str, used))}; allowed: 1, 2, ... without gaps up to {IGNORE - 1}; "
            "renumber them, here and in the label files"
        )
    repeated = next((number for number in single if single.count(number) > 1), None)
    if repeated is not None:
        raise DataError(f"{path}: two labels are {repeated}; allowed: different numbers; correct one")
    if ignored and ignored != (used[-1] + 1,):
        raise DataError(
            f"{path}: the label '{IGNORED}' is {', '.join(map(str, ignored))}; allowed: {used[-1] + 1}, the number "
            "after the last class; correct it, here and in the label files"
        )


def _has_regions(document: Mapping[str, Any]) -> bool:
    return any(isinstance(value, list) for value in document["labels"].values())


def _channels(document: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    channels = document.get("channel_names", document.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise DataError(f'{path} has no channel_names; allowed: such as {{"0": "CT"}}; add them')
    expected = [str(number) for number in range(len(channels))]
    if sorted(channels, key=lambda key: (len(key), key)) != expected:
        raise DataError(
            f"{path}: channel_names has the numbers {', '.join(channels)}; allowed: {', '.join(expected)}; correct them"
        )
    names = tuple(str(channels[number]) for number in expected)
    if len(set(names)) < len(names):
        # Names of normalisation schemes, such as CT, may be repeated.
        return tuple(f"{name}_{number}" if names.count(name) > 1 else name for number, name in enumerate(names))
    return names


def _number_of_cases(document: Mapping[str, Any], path: Path) -> int:
    number = document.get("numTraining")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise DataError(
            f"{path}: numTraining is {json.dumps(number)}; allowed: the number of files in labelsTr; correct it"
        )
    return number


def _ending(document: Mapping[str, Any], path: Path) -> str:
    default = VERSION_1_ENDING if "channel_names" not in document else None
    ending = document.get("file_ending", default)
    known = sorted(SUFFIXES | VOLUME_SUFFIXES)
    if not isinstance(ending, str) or ending.lower() not in known:
        raise DataError(
            f"{path}: file_ending is {json.dumps(ending)}; allowed: {', '.join(known)}; correct it, or convert the "
            "files"
        )
    return ending
