"""The JSON of COCO (Lin et al. 2014, arXiv 1405.0312) as far as it is read here."""

import json
import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from datasets.decoding.text import read_bytes
from datasets.errors import DataError

KEY = re.compile(r"(?!str$|int$)[a-z]\w*")


class Part(BaseModel):
    """A part of the file: keys that are not read are let through, numbers that are none are not."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CocoImage(Part):
    """An image; `file_name` below the folder of images."""

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
    """Read a file; raises `DataError` saying where it is wrong."""
    try:
        return form.model_validate(json.loads(read_bytes(path)))
    except ValidationError as error:
        fault = max(error.errors(), key=lambda found: len(found["loc"]))  # of alternatives the one that fits best
        # Names of types stand in between where a value may be of several.
        where = ".".join(str(part) for part in fault["loc"] if isinstance(part, int) or KEY.fullmatch(part))
        raise DataError(f"{path}: {where or 'content'}: {fault['msg']}; allowed: COCO; restore the file") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: COCO in JSON; restore the file") from error
