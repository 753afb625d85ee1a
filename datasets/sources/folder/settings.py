"""Settings of user data in folders."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from datasets.decoding.mask_coding import MaskCoding, MaskValue
from datasets.errors import DataError
from datasets.settings import BaseDataSettings, FileSettings, VolumeSettings
from datasets.source import BACKGROUND, IGNORE
from datasets.sources.common.class_ids import IgnoreSettings, check_names
from datasets.sources.folder.patterns import PLACEHOLDERS, Part, Pattern

ANNOTATOR, FOLDER = re.compile(r"[A-Za-z0-9_-]+"), re.compile(r"[^./\\][^/\\]*")
"""Names of annotators, which are part of the names of splits, and of folders."""
UNLABELLED: Final = "ignore"
"""Name of values of unlabelled pixels in `mask_values`."""
FROM_MASKS: Final = "from masks"


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(
            f"is '{text}', which is no regular expression ({error}); allowed: such as '^[0-9]+'; correct it"
        ) from None
    return text


def _file_below_root(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"is '{name}'; allowed: a file below root; make it relative")
    return str(path)


Expression = Annotated[str, AfterValidator(_regular_expression)]
BelowRoot = Annotated[str, AfterValidator(_file_below_root)]
MaskEntry = StrictInt | tuple[StrictInt | tuple[StrictInt, ...], ...]
"""A grey value or id, a colour of three numbers, or a list of these; three ids are `[[1], [2], [3]]`."""


class PatientTable(BaseDataSettings):
    """A table that names the patient of each image; `image` and `patient` are its columns."""

    table: BelowRoot
    image: str = "image"
    patient: str = "patient"


class FolderSettings(FileSettings, IgnoreSettings, VolumeSettings):
    """Images in `images/<stem>.png|jpg|tif|bmp|gif|webp|dcm`, volumes also in `images/<stem>.nii|nii.gz`.

    Masks: `masks/<stem>.png|tif|bmp|gif|webp` with class ids, or `masks/<class>/<stem>.png` if classes overlap.
    Masks of volumes: TIFF files with as many pages, or NIfTI files with the same affine.
    Optional:
    `labels.csv` (image, one column per label: 1, 0, or empty for unknown), `boxes.csv` (image, x, y, width,
    height, label), `centres.csv` (image, x, y[, structure]), `points.csv` (image, x, y, class),
    `cases.csv` (image, patient[, category]), `classes.txt` (one foreground class per line, id 1 first). Tables refer to
    images by stem or file name. `scribbles/` has the layout of `masks/`: class ids, or 0 and 1 for each class, and
    outside of scribbles 255 or an id of `ignore`.
    """

    source: Literal["folder"] = "folder"
    annotators: dict[str, str] | None = None
    """Folder of the masks of each annotator, by name; default: only those in `masks`."""
    train: str | None = None
    """The annotator whose masks are trained on; default: the first."""
    missing: Literal["absent", "not_annotated"] = "absent"
    """What it means for a class that overlaps others if an image has masks of these, but none of the class."""
    images: str | None = None
    """Pattern of the paths of images; see `datasets.sources.folder.patterns`. Default: the folder `images`."""
    masks: str | None = None
    """Pattern of the paths of masks, with `images`; default: no masks."""
    mask_threshold: Annotated[StrictInt, Field(ge=0, lt=65535)] | None = None
    """Grey values above it are foreground, of a single class or of each class with masks of its own."""
    mask_values: dict[str, MaskEntry] | None = None
    """Values of each class in masks; `background` and `ignore` name those of no class and of unlabelled pixels."""
    patients: Expression | tuple[Expression, ...] | PatientTable | None = None
    """Where the name of an image has its patient: regular expressions, or a table; default: `cases.csv`."""
    lists: dict[Literal["train", "validation", "test"], BelowRoot] | None = None
    """Files with the names of the images of each published part, one per line."""
    centres: Literal["from masks"] | None = None
    """Centres of the classes, derived from their masks."""
    boxes: Literal["from masks"] | None = None
    """Boxes of the components of each class, derived from their masks."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Number of cases to read, of whole patients; default: all."""

    @model_validator(mode="after")
    def _known_annotators(self) -> Self:
        if self.annotators is None:
            if self.train is not None:
                raise ValueError(f"train is {self.train}; allowed: only with `annotators`; list them or remove it")
            return self
        folders = list(self.annotators.values())
        if len(folders) < 2 or len(set(folders)) < len(folders):
            raise ValueError(
                f"annotators have the folders {', '.join(folders) or 'none'}; allowed: at least two, all different; "
                "name the folder of each annotator"
            )
        for name, folder in self.annotators.items():
            if not ANNOTATOR.fullmatch(name):
                raise ValueError(f"annotators has the name '{name}'; allowed: letters, digits, '-', '_'; rename it")
            if self.images is None and (not FOLDER.fullmatch(folder) or folder.casefold() == "images"):
                raise ValueError(
                    f"annotators.{name} is '{folder}'; allowed: a folder beside images/, such as masks; correct it"
                )
        if self.train is not None and self.train not in self.annotators:
            raise ValueError(
                f"train is {self.train}; allowed: {', '.join(self.annotators)}; name one of the annotators"
            )
        return self

    @model_validator(mode="after")
    def _valid_patterns(self) -> Self:
        if self.images is None:
            if self.masks is not None:
                raise ValueError("masks needs `images`; allowed: patterns of both; add that of the images")
            return self
        if self.masks is not None and self.annotators is not None:
            raise ValueError("masks and annotators are given; allowed: one of them; remove `masks`")
        patterns: dict[str, tuple[str, tuple[str, ...]]] = {"images": (self.images, ("name", "part"))}
        if self.masks is not None:
            patterns["masks"] = (self.masks, PLACEHOLDERS)
        for name, text in (self.annotators or {}).items():
            patterns[f"annotators.{name}"] = (text, PLACEHOLDERS)
        for key, (text, allowed) in patterns.items():
            fault = Pattern(text).fault(allowed)
            if fault:
                raise ValueError(f"{key} is '{text}' and {fault}")
        by_class = {"{class}" in text for text in self.mask_folders}
        if len(by_class) > 1:
            raise ValueError(
                "annotators: some patterns have {class}; allowed: all or none of them; write the same kind of masks"
            )
        if len({self.images, *self.mask_folders}) < 1 + len(self.mask_folders):
            raise ValueError(f"images is '{self.images}', as masks are; allowed: different patterns; correct one")
        if self.lists is not None and "{part}" in self.images:
            raise ValueError("lists and {part} in `images` are given; allowed: one of them; remove `lists`")
        return self

    @model_validator(mode="after")
    def _valid_values(self) -> Self:
        if self.mask_threshold is not None and self.mask_values is not None:
            raise ValueError("mask_threshold and mask_values are given; allowed: one of them; remove one")
        if self.ignored_ids and (self.mask_threshold is not None or self.mask_values is not None):
            remedy = f"name unlabelled values `{UNLABELLED}` in mask_values"
            raise ValueError(f"ignore does not apply to mask_threshold or mask_values; allowed: one of them; {remedy}")
        if self.mask_values is None:
            return self
        if any("{class}" in text for text in self.mask_folders):
            raise ValueError("mask_values is given, and masks have {class}; allowed: one of them; remove mask_values")
        for name, entry in self.mask_values.items():
            for value in _values(entry):
                limit = 65535 if len(value) == 1 else 255
                if len(value) not in (1, 3) or not all(0 <= number <= limit for number in value):
                    raise ValueError(
                        f"mask_values.{name} has {list(value)}; allowed: a grey value or id of 0 to 65535, a colour "
                        "such as [255, 0, 0], or a list of these; correct it"
                    )
        counts = Counter(value for entry in self.mask_values.values() for value in _values(entry))
        repeated = next((value for value, count in counts.items() if count > 1), None)
        if repeated is not None:
            raise ValueError(f"mask_values has {list(repeated)} twice; allowed: each value once; correct one")
        try:
            check_names(self.value_classes, "mask_values")
        except DataError as error:
            raise ValueError(str(error)) from None
        if not 1 <= len(self.value_classes) < IGNORE:
            raise ValueError(
                f"mask_values has {len(self.value_classes)} classes; allowed: 1 to {IGNORE - 1}; name those of the data"
            )
        return self

    @property
    def value_classes(self) -> tuple[str, ...]:
        """Return the classes of `mask_values`, in the order of their ids."""
        return tuple(name for name in self.mask_values or () if name not in (BACKGROUND, UNLABELLED))

    @property
    def part_lists(self) -> Mapping[Part, str]:
        """Return the file of each published part with a list."""
        return dict((self.lists or {}).items())

    @property
    def coding(self) -> MaskCoding | None:
        """Return the meaning of the values of masks, None if they are class ids."""
        if self.mask_values is None:
            return MaskCoding(threshold=self.mask_threshold) if self.mask_threshold is not None else None
        ids = {BACKGROUND: 0, UNLABELLED: IGNORE} | {name: k for k, name in enumerate(self.value_classes, 1)}
        pairs = ((value, ids[name]) for name, entry in self.mask_values.items() for value in _values(entry))
        return MaskCoding(ids=tuple(pairs))

    @property
    def trained(self) -> str | None:
        """Return the annotator whose masks are read, None without annotators."""
        return self.train or (next(iter(self.annotators)) if self.annotators else None)

    @property
    def mask_folders(self) -> tuple[str, ...]:
        """Return the folders or patterns of masks, first the one that is read."""
        if self.annotators is None:
            return ("masks",) if self.images is None else (self.masks,) if self.masks is not None else ()
        read = self.annotators[self.trained or ""]
        return (read, *(folder for folder in self.annotators.values() if folder != read))

    @property
    def collection(self) -> str:
        """Namespace of patients: the resolved root."""
        return str(self.root.resolve())


def _values(entry: MaskEntry) -> Iterator[MaskValue]:
    """Yield the values of an entry of `mask_values`; three numbers are a colour."""
    if isinstance(entry, int):
        yield (entry,)
    elif len(entry) == 3 and all(isinstance(number, int) for number in entry):
        yield tuple(number for number in entry if isinstance(number, int))
    else:
        for item in entry:
            yield (item,) if isinstance(item, int) else item
