"""Settings of images, splits and augmentation as a study file spells them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=1e-6, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("holds a null character; allowed: a path that a file can have; remove it")
    return path.absolute()


Place = Annotated[Path, AfterValidator(_absolute)]
"""A path made absolute when the file is read: workers run in folders of their own."""


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EqualiseSettings(Settings):
    """Contrast limited adaptive histogram equalisation (Zuiderveld 1994) over `tiles` x `tiles` parts."""

    clip: Annotated[float, Field(gt=0)] = 2.0
    tiles: Annotated[int, Field(ge=1, le=64)] = 8


class PrepareSettings(Settings):
    """Fixed changes of an image before it is fitted, in this order.

    `normalise` stretches its grey values to the whole range, `equalise` evens out local contrast, `gamma` raises
    grey values in 0..1 to this power. Colours change by their brightness.
    """

    normalise: bool = False
    equalise: EqualiseSettings | None = None
    gamma: Annotated[float, Field(gt=0, le=10)] = 1.0


class ImageSettings(Settings):
    """How a decoded image becomes the network's square input."""

    size: Annotated[int, Field(ge=16, le=4096)] = 256
    channels: Literal[1, 3] = 1
    fit: Literal["stretch", "letterbox"] = "stretch"
    prepare: PrepareSettings = PrepareSettings()


class TestImages(Settings):
    """A fixed test set of about this many images, whole patients."""

    images: Annotated[int, Field(ge=1, le=10**9)]


class TestShare(Settings):
    """A fixed test set of this share of the images, whole patients."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
    share: Share
    and_: Literal["single_case_categories"] | None = Field(default=None, alias="and")


class ValidationShare(Settings):
    """Every round(1/share)-th patient of the labelled order validates."""

    share: Share = 0.2


class FileList(Settings):
    """Image ids, one a line."""

    list: Place


class SplitSettings(Settings):
    """Who tests and who validates. `seed` holds partition and order fixed for all replicates."""

    test: Literal["folds", "official"] | TestImages | TestShare | FileList = "folds"
    validation: Literal["folds", "official"] | ValidationShare | FileList = ValidationShare()
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class AugmentSettings(Settings):
    """Random changes of a training image; 0 switches one off.

    `rotate` and `shear` in degrees, `scale` and `shift` as shares of the image. `crop` cuts off up to this share of
    the side and enlarges the rest, `elastic` moves points by up to about this share (Simard et al. 2003).
    `brightness` and `contrast` as fractions, `gamma` as a share around 1, `noise` as a standard deviation of the
    0..1 range.
    """

    flip: Probability = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    crop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    elastic: Annotated[float, Field(ge=0, lt=1)] = 0.0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0


class SourceSettings(Settings):
    """What every data source shares. `classes` and `labels` choose and order, default all."""

    split: SplitSettings = SplitSettings()
    classes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for key in ("classes", "labels"):
            names = getattr(self, key)
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"{key} is {list(names)}; allowed: a list of different names, at least one")
        return self


class FileSettings(SourceSettings):
    """What sources of files share: the folder of the data set."""

    root: Place

    @property
    def collection(self) -> str:
        """Namespace of patients: sets that share patients have one."""
        raise NotImplementedError
