"""The JSON of COCO (Lin et al. 2014, arXiv 1405.0312) reduced to the keys that are read."""

import json
import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets.decoding.text import read_bytes
from datasets.errors import DataError

KEY = re.compile(r"(?!str$|int$)[a-z]\w*")


class Part(BaseModel):
    """Base class of parts of the file: unknown keys are ignored, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CocoImage(Part):
    """An image; `file_name` is relative to the folder of images."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(Part):
    """A class by its number."""

    id: int
    name: str


Form = TypeVar("Form", bound=Part)


def read_coco(path: Path, form: type[Form]) -> Form:
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
