"""Settings of images and splits, as written in a study file."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Side = Annotated[int, Field(ge=16, le=4096)]


def _one_side(size: int | tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if isinstance(size, tuple) and size[0] == size[1] else size


Size = Annotated[Side | tuple[Side, Side], AfterValidator(_one_side)]
"""Side of a square in pixels, or height and width."""
NATIVE: Final = "native"
EvaluatedSize = Size | Literal["native"]
"""Size to which predictions and masks are resized for scoring, or `native`: the size of each image."""
Channels = Annotated[int, Field(ge=1, le=64)]
Share = Annotated[float, Field(ge=1e-6, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("holds a null character; allowed: a path that a file can have; remove it")
    return path.absolute()


Place = Annotated[Path, AfterValidator(_absolute)]
"""A path, made absolute when the study file is read because workers have a different working directory."""


class BaseDataSettings(BaseModel):
    """Base class of settings: frozen, unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EqualiseSettings(BaseDataSettings):
    """Contrast limited adaptive histogram equalisation (Zuiderveld 1994) over `tiles` x `tiles` parts."""

    clip: Annotated[float, Field(gt=0)] = 2.0
    tiles: Annotated[int, Field(ge=1, le=64)] = 8


class PrepareSettings(BaseDataSettings):
    """Preprocessing of an image before it is resized, in this order.

    `normalise` stretches the grey values to the full range, `equalise` equalises local contrast, `gamma` raises
    grey values in 0..1 to this power. For colour images only the lightness changes.
    """

    normalise: bool = False
    equalise: EqualiseSettings | None = None
    gamma: Annotated[float, Field(gt=0, le=10)] = 1.0


FitName = Literal["stretch", "letterbox", "patch"]
SCALE_RANGE: Final = (0.01, 10)
"""Smallest and largest factor by which sides of an image are resized."""
Scale = Annotated[float, Field(ge=SCALE_RANGE[0], le=SCALE_RANGE[1])]
PixelSpacing = Annotated[float, Field(ge=1e-4, le=1000)]
"""Side of a pixel in mm."""


class ImageSettings(BaseDataSettings):
    """How a decoded image becomes the network's input of `size` pixels.

    `stretch` and `letterbox` resize the whole image. `patch` cuts patches out of the image in its own resolution, after
    resizing both sides by the factor `scale`, or so that a pixel has `spacing` mm. Grey and colour images are converted
    to 1 or 3 `channels`; images with any other number of channels must have as many as the input.
    """

    size: Size = 256
    channels: Channels = 1
    fit: FitName = "stretch"
    scale: Scale = 1.0
    spacing: PixelSpacing | None = None
    prepare: PrepareSettings = PrepareSettings()

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width of the input in pixels."""
        return shape_of(self.size)

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.spacing is not None and self.scale != 1.0:
            raise ValueError(
                f"spacing is {self.spacing:g} and scale {self.scale:g}; allowed: one of them; remove `scale`"
            )
        return self


def shape_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a size."""
    return (size, size) if isinstance(size, int) else size


class TestImages(BaseDataSettings):
    """A fixed test set of about this many images; patients are not divided."""

    images: Annotated[int, Field(ge=1, le=10**9)]


class TestShare(BaseDataSettings):
    """A fixed test set of this share of the images; patients are not divided."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
    share: Share
    and_: Literal["single_case_categories"] | None = Field(default=None, alias="and")


class ValidationShare(BaseDataSettings):
    """Use every round(1/share)-th patient, in labelling order, for validation."""

    share: Share = 0.2


class FileList(BaseDataSettings):
    """A text file of image ids, one per line."""

    list: Place


class SplitSettings(BaseDataSettings):
    """Which patients are used for testing and validation. `seed` fixes partition and order for all replicates."""

    test: Literal["folds", "official"] | TestImages | TestShare | FileList = "folds"
    validation: Literal["folds", "official"] | ValidationShare | FileList = ValidationShare()
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class PatchSettings(BaseDataSettings):
    """Which patches of an image are used for training under `fit: patch`.

    Each epoch has `per_image` random patches of every image. A patch contains a random pixel of a random class with the
    probability `foreground`, and is anywhere otherwise.
    """

    foreground: Probability = 0.33
    per_image: Annotated[int, Field(ge=1, le=10**6)] = 1


AnnotationName = Literal["mask", "box", "points", "scribble", "class"]
"""Kinds of annotation as annotators draw them."""
Minutes = Annotated[float, Field(ge=0, le=10**6)]


class AnnotationMinutes(BaseDataSettings):
    """Minutes that an annotator needs for one image, or one slice of a volume, by kind of annotation."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
    mask: Minutes | None = None
    box: Minutes | None = None
    points: Minutes | None = None
    scribble: Minutes | None = None
    class_: Minutes | None = Field(default=None, alias="class")

    def of(self, name: AnnotationName) -> float | None:
        """Return the minutes of a kind of annotation, None if they are not stated."""
        minutes: float | None = getattr(self, "class_" if name == "class" else name)
        return minutes


class SourceSettings(BaseDataSettings):
    """Settings of every data source. `classes` and `labels` select and order; the default is all."""

    split: SplitSettings = SplitSettings()
    classes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    annotation_minutes: AnnotationMinutes | None = None
    """Cost of the annotation, used by the analysis only; None for data that are annotated already."""

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for key in ("classes", "labels"):
            names = getattr(self, key)
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"{key} is {list(names)}; allowed: a list of different names, at least one")
        return self


class VolumeSettings(BaseDataSettings):
    """How the slices of volumes (NIfTI files, frames of DICOM files, pages of TIFF files) become images.

    `axis` is the one that slices are perpendicular to: 0 (left to right), 1 (front to back) or 2 (feet to head); see
    `datasets.decoding.volume`. `window` are the values shown as black and white. `slices: annotated` trains only on
    slices whose masks show a class.
    """

    axis: Literal[0, 1, 2] | None = None
    window: tuple[float, float] | None = None
    slices: Literal["all", "annotated"] = "all"

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.window is not None and self.window[0] >= self.window[1]:
            low, high = self.window
            raise ValueError(
                f"window is [{low:g}, {high:g}]; allowed: the value shown as black, then a larger one shown as white; "
                "correct it"
            )
        return self


class FileChannels(BaseDataSettings):
    """Channels of volumes that each file holds along a fourth axis: their number, and which are read, in order.

    This is part of a layout and not of a study file.
    """

    count: Annotated[int, Field(ge=2)]
    selected: tuple[int, ...]


class FileSettings(SourceSettings):
    """Settings of sources that read files: `root` is the folder of the data set."""

    root: Place

    @property
    def collection(self) -> str:
        """Namespace of patient ids; data sets with common patients return the same one."""
        raise NotImplementedError
