"""TIFF files whose samples are neither grey nor colour, such as multispectral images."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tifffile import TiffPage

ALPHA = (1, 2)
"""Values of ExtraSamples (TIFF 6.0): associated and unassociated alpha."""


def read_bands(data: bytes) -> NDArray[Any] | None:
    """Return all samples of a TIFF image, (height, width, bands), if these are neither grey nor colour.

    None for other files, for several pages, and for grey with alpha. Raises `ValueError` for damaged files.
    """
    if data[:2] not in (b"II", b"MM"):
        return None
    from tifffile import TiffFile, TiffFileError, TiffPage

    try:
        with TiffFile(io.BytesIO(data)) as file:
            pages = [page for page in file.pages if isinstance(page, TiffPage) and not page.is_reduced]
            if len(pages) != 1 or not has_bands(pages[0]):
                return None
            values = pages[0].asarray()
            return np.moveaxis(values, 0, -1) if pages[0].planarconfig == 2 else values
    except TiffFileError as error:
        raise ValueError(str(error)) from error


def has_bands(page: "TiffPage") -> bool:
    """Return whether the samples of a page are neither grey nor colour."""
    is_grey = page.photometric in (0, 1)  # MinIsWhite, MinIsBlack
    return is_grey and page.samplesperpixel > 1 and not any(extra in ALPHA for extra in page.extrasamples)
