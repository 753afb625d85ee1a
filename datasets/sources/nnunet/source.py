"""Raw data sets of nnU-Net: `dataset.json`, `imagesTr`, `labelsTr`, `imagesTs`, and `labelsTs` if there are any."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import Field

from datasets.cache.manifest import Listing
from datasets.decoding.decode import VOLUME_SUFFIXES, split_channel, stem_of
from datasets.decoding.spacing_json import SUFFIX, TIFF_SUFFIXES, read_spacing
from datasets.decoding.volume import SPACING_TOLERANCE
from datasets.errors import DataError
from datasets.settings import FileChannels, FileSettings, ImageSettings, VolumeSettings
from datasets.source import Index, ProgressCallback
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.tables import choose
from datasets.sources.nnunet.dataset_json import NAME, DatasetJson, read_dataset_json, read_splits

COLOURS: Final = 3
Part = Literal["train", "test"]
FOLDERS: Final[Mapping[Part, tuple[str, str]]] = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}


class NnunetSettings(FileSettings, VolumeSettings):
    """A raw data set of nnU-Net, such as `nnUNet_raw/Dataset001_BrainTumour`.

    `channels` selects and orders channels by name. The `val` cases of a `fold` in `splits_final.json` are the
    validation images of the publisher.
    """

    source: Literal["nnunet"] = "nnunet"
    channels: tuple[str, ...] | None = None
    fold: Annotated[int, Field(ge=0, le=1000)] | None = None

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


class NnunetSource(FileSource):
    """Source of `NnunetSettings`. Each case counts as a patient."""

    folders = {"imagesTr": "image", "labelsTr": "ids", "imagesTs": "image", "labelsTs": "ids"}  # noqa: RUF012

    def __init__(self, settings: NnunetSettings) -> None:
        super().__init__(settings)
        self._chosen, self._fold = settings.channels, settings.fold

    @cached_property
    def _description(self) -> DatasetJson:
        return read_dataset_json(self._root)

    @cached_property
    def _channels(self) -> tuple[int, ...]:
        """Numbers of the selected channels."""
        known = self._description.channels
        return tuple(known.index(name) for name in choose(known, self._chosen, "channels", self._root))

    def _channels_in_files(self, listing: Listing) -> FileChannels | None:
        """Return the channels of files of four dimensions, as in the Medical Segmentation Decathlon."""
        description, images = self._description, _files(listing, "imagesTr")
        is_decathlon = description.is_version_1 and description.ending.lower() in VOLUME_SUFFIXES
        is_numbered = any(split_channel(stem_of(path))[1] is not None for path in images)
        if not is_decathlon or len(description.channels) < 2 or is_numbered:
            return None
        return FileChannels(count=len(description.channels), selected=self._channels)

    @property
    def channel_files(self) -> tuple[int, ...]:
        """Numbers of the channels that are read; see `Source.channel_files`."""
        in_one_file = len(self._description.channels) == 1 or self._is_colour or self.file_channels is not None
        return () if in_one_file else self._channels

    def index(
        self, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
    ) -> Index:
        """Return the index; see `Source.index`. Files of single channels are no images to be resized."""
        return super().index(cache, progress, fits if len(self.channel_files) < 2 else ())

    def _published(self, listing: Listing) -> PublishedDataset:
        description = self._description
        _check_folders(listing, description)
        cases = [case for part in FOLDERS for case in self._cases_of(part, listing)]
        labelled = [case.id for case in cases if case.official == "train" and case.masks]
        if len(labelled) != description.cases:
            raise DataError(
                f"{self._root / NAME}: numTraining is {description.cases}, but labelsTr has {len(labelled)} files; "
                "allowed: their number; correct it, or restore the files"
            )
        if self._fold is not None:
            validation = read_splits(self._root, self._fold, labelled)
            cases = [replace(case, official="validation") if case.id in validation else case for case in cases]
        return PublishedDataset(
            cases=cases, classes=description.classes, overlapping=bool(description.regions),
            regions=description.regions, ignored=description.ignored, class_list=NAME,
        )  # fmt: skip

    def _cases_of(self, part: Part, listing: Listing) -> Iterator[PublishedCase]:
        images, labels = FOLDERS[part]
        ending = self._description.ending
        masks = {path.rpartition("/")[2].removesuffix(ending): path for path in _files(listing, labels)}
        by_case = self._files_by_case(_files(listing, images))
        unread = frozenset(listing.unread)
        orphans = sorted(masks.keys() - by_case.keys())
        if orphans:
            raise DataError(
                f"{self._root / masks[orphans[0]]} has no image ({len(orphans)} such labels); allowed: "
                f"{images}/{orphans[0]}_0000{ending}; add the image or remove the label"
            )
        for name, files in by_case.items():
            paths = [files[number] for number in self._needed(files) if number in files]
            missing = [number for number in self._needed(files) if number not in files]
            spacing, fault = self._spacing(f"{images}/{name}", f"{labels}/{name}", unread)
            yield PublishedCase(
                id=name, path=(paths or list(files.values()))[0], channels=tuple(paths[1:]), official=part,
                masks=(MaskFile(path=masks[name]),) if name in masks else (),
                remark="" if name in masks or part == "test" else _unlabelled(f"{labels}/{name}{ending}"),
                fault=self._missing_channel(f"{images}/{name}", missing[0]) if missing else fault, spacing=spacing,
            )  # fmt: skip

    def _spacing(self, image: str, label: str, unread: Collection[str]) -> tuple[tuple[float, ...], str]:
        """Return the spacing in the JSON file beside a TIFF image, () without one, and a fault, "" without one.

        Args:
            image: Path of the image without channel and ending.
            label: Path of the label without ending.
            unread: Files that are neither images nor labels.
        """
        if self._description.ending.lower() not in TIFF_SUFFIXES or image + SUFFIX not in unread:
            return (), ""
        try:
            spacing = read_spacing(self._root / (image + SUFFIX))
            of_label = read_spacing(self._root / (label + SUFFIX)) if label + SUFFIX in unread else spacing
        except DataError as error:
            return (), str(error)
        if len(spacing) != len(of_label) or not np.allclose(spacing, of_label, rtol=SPACING_TOLERANCE):
            return (), (
                f"{label}{SUFFIX} states the spacing {list(of_label)}; allowed: {list(spacing)}, as {image}{SUFFIX}; "
                "correct one of them"
            )
        return spacing, ""

    def _needed(self, files: Mapping[int, str]) -> Sequence[int]:
        """Return the numbers of the files to read: of the selected channels, or the only one, which has all of them."""
        has_all = (self._is_colour and list(files) == [0]) or self.file_channels is not None
        return (0,) if has_all else self._channels

    @cached_property
    def _is_colour(self) -> bool:
        """Whether the three channels are the colours of one file."""
        if len(self._description.channels) != COLOURS or self.file_channels is not None:
            return False
        stems = [path.removesuffix(self._description.ending) for path in _files(self._listing, "imagesTr")]
        is_colour = not any(stem.endswith(("_0001", "_0002")) for stem in stems)
        if is_colour and self._chosen is not None:
            raise DataError(
                f"{self._root}: channels is {', '.join(self._chosen)}, but all colours are in one file; allowed: all "
                "of them; remove `channels`"
            )
        return is_colour

    def _files_by_case(self, paths: Sequence[str]) -> Mapping[str, dict[int, str]]:
        """Return the file of each channel by case. Raises `DataError` for names without a known channel."""
        description = self._description
        by_case: dict[str, dict[int, str]] = {}
        for path in paths:
            stem = path.rpartition("/")[2].removesuffix(description.ending)
            name, number = split_channel(stem)
            if number is None and len(description.channels) > 1 and self.file_channels is None:
                raise DataError(
                    f"{self._root / path} names no channel; allowed: {stem}_0000{description.ending} for the first "
                    "channel, and so on; rename it"
                )
            number = number or 0
            if number >= len(description.channels):
                raise DataError(
                    f"{self._root / path} is of channel {number}, which {NAME} lacks; allowed: 0 to "
                    f"{len(description.channels) - 1}; add it to channel_names or remove the file"
                )
            other = by_case.setdefault(name, {}).setdefault(number, path)
            if other != path:
                raise DataError(
                    f"{self._root / path} and {other} are the same channel of {name}; allowed: one file for each "
                    "channel; remove one"
                )
        return by_case

    def _missing_channel(self, case: str, number: int) -> str:
        description = self._description
        return (
            f"{case}_{number:04d}{description.ending} is missing, channel '{description.channels[number]}'; allowed: a "
            "file for each channel; restore it, or choose others with `channels`"
        )


def _files(listing: Listing, folder: str) -> list[str]:
    return [path for path in listing.inside(folder) if path.count("/") == 1]


def _check_folders(listing: Listing, description: DatasetJson) -> None:
    """Raise `DataError` for missing folders, and for files with another ending."""
    for folder in FOLDERS["train"]:
        if not (listing.root / folder).is_dir():
            raise DataError(f"{listing.root} has no folder {folder}; allowed: a raw data set of nnU-Net; set `root`")
    other = [path for path in listing.files if not path.endswith(description.ending)]
    if other:
        raise DataError(
            f"{listing.root / other[0]} does not end in {description.ending}, as {NAME} says ({len(other)} such "
            "files); allowed: one ending; correct file_ending, or convert the files"
        )


def _unlabelled(path: str) -> str:
    return (
        f"its label file {path} is missing; allowed: images without labels, for pretraining; check that this is meant"
    )
