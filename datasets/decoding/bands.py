"""TIFF files whose samples are neither grey nor colour, such as multispectral images."""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.raster import NO_DATA, check_pixels, parse_no_data

if TYPE_CHECKING:
    from tifffile import TiffPage

ALPHA = (1, 2)
"""Values of ExtraSamples (TIFF 6.0): associated and unassociated alpha."""


class Bands(NamedTuple):
    """All samples of an image, (height, width, bands), and the value of those without data, NaN if not set."""

    values: NDArray[Any]
    no_data: float


def read_bands(data: bytes) -> Bands | None:
    """Return all samples of a TIFF image if these are neither grey nor colour.

    None for other files, for several pages, and for grey with alpha. Raises `ValueError` for damaged files, and
    `UnsuitableError` for images that are too large to be decoded at once.
    """
    if data[:2] not in (b"II", b"MM"):
        return None
    from tifffile import TiffFile, TiffFileError, TiffPage

    try:
        with TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if isinstance(page, TiffPage) and not page.is_reduced]
            if len(pages) != 1 or not has_bands(pages[0]):
                return None
            page = pages[0]
            check_pixels(page.imagelength, page.imagewidth, page.samplesperpixel * max(page.bitspersample // 8, 1))
            values = page.asarray()
            if values.ndim != 3 or not values.size:
                raise ValueError("its header describes no image")
            values = np.moveaxis(values, 0, -1) if page.planarconfig == 2 else values
            return Bands(values, parse_no_data(page.tags.valueof(NO_DATA, "nan")))
    except TiffFileError as error:
        raise ValueError(str(error)) from error


def has_bands(page: "TiffPage") -> bool:
    """Return whether the samples of a page are neither grey nor colour."""
    is_grey = page.photometric in (0, 1)  # MinIsWhite, MinIsBlack
    return is_grey and page.samplesperpixel > 1 and not any(extra in ALPHA for extra in page.extrasamples)
