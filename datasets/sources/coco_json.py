"""The JSON of COCO (Lin et al. 2014, arXiv 1405.0312) reduced to the keys that are read."""

import json
import re
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datasets.decoding.text import read_bytes
from datasets.errors import DataError

KEY = re.compile(r"(?!str$|int$)[a-z]\w*")


class CocoBase(BaseModel):
    """Base class of parts of the file: unknown keys are ignored, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CocoImage(CocoBase):
    """An image; `file_name` is relative to the folder of images."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(CocoBase):
    """A class by its number."""

    id: int
    name: str


class CocoAnnotation(CocoBase):
    """An annotation of the image `image_id`."""

    id: int
    image_id: int


BoundingBox = Annotated[tuple[float, ...], Field(min_length=4, max_length=4)]
"""x and y of the upper left corner, width and height in pixels."""
ImageT = TypeVar("ImageT", bound=CocoImage)
AnnotationT = TypeVar("AnnotationT", bound=CocoAnnotation)


class CocoFile(CocoBase, Generic[ImageT, AnnotationT]):
    """The content of a file."""

    images: list[ImageT]
    annotations: list[AnnotationT]
    categories: list[CocoCategory]


CocoModel = TypeVar("CocoModel", bound=CocoBase)


def read_coco(path: Path, form: type[CocoModel]) -> CocoModel:
    """Read and validate a file. Raises `DataError` with the location of the fault."""
    try:
        return form.model_validate(json.loads(read_bytes(path)))
    except ValidationError as error:
        fault = max(error.errors(), key=lambda entry: len(entry["loc"]))  # of alternative types the best match
        # The location of a value with alternative types includes the names of the types.
        location = ".".join(str(part) for part in fault["loc"] if isinstance(part, int) or KEY.fullmatch(part))
        raise DataError(f"{path}: {location or 'content'}: {fault['msg']}; allowed: COCO; restore the file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: COCO in JSON; restore the file") from error
