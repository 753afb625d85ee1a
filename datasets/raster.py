"""An opened image file: its pixels with all their bits, as stored, whatever PIL would round, turn or wrap."""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.sample import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

Values = NDArray[Any]

ORIENTATION, PHOTOMETRIC, SAMPLE_FORMAT, COLOUR_MAP, SUBFILE, NO_DATA = 274, 262, 339, 320, 254, 42113
"""TIFF tags (TIFF 6.0; the last one is GDAL's)."""
GREY_STEPS: Final = {"L;2": 85, "L;4": 17}
"""By how much PIL multiplies grey values of 2 and 4 bits."""
_TURNED_BACK: Final = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
    8: "ROTATE_270",
}  # fmt: skip
"""By EXIF orientation, what undoes turning an image upright."""


class UnsuitableError(ValueError):
    """A sound file that cannot be what it should be; says what it has, what is allowed, and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Raster:
    """A decoded file. `image` is loaded; `packing` names the bits a pixel has in the file (PIL's raw mode)."""

    data: bytes
    image: "Image"
    packing: str
    orientation: int
    """EXIF orientation, 1 where nothing is turned."""
    tags: dict[int, Any]
    """Tags of a TIFF file, empty of others."""

    @property
    def white_is_zero(self) -> bool:
        """Whether a TIFF file says that 0 is white."""
        return self.tags.get(PHOTOMETRIC) == 0

    @cached_property
    def no_data(self) -> float:
        """Return GDAL's number for missing pixels, NaN where there is none."""
        try:
            return float(str(self.tags.get(NO_DATA, "nan")).strip("\0 "))
        except ValueError:
            return float("nan")

    @property
    def lossy(self) -> bool:
        """Whether the compression changes numbers: JPEG, also within TIFF, and WebP but for its lossless kind."""
        if self.image.format == "WEBP":
            return b"VP8L" not in self.data[:64]
        return self.image.format in {"JPEG", "MPO"} or self.image.info.get("compression") == "jpeg"

    def colour(self) -> Values:
        """Return (height, width) grey or (height, width, 3) RGB without alpha, palettes expanded, with all bits."""
        if self._is_palette:
            return np.asarray(self._palette()[self._indices()])
        if self.image.mode in {"1", "L", "LA", "La"} and not self._is_deep and not self._is_signed:
            return np.asarray(self.image if self.image.mode == "L" else self.image.convert("L"))
        if self.image.mode in {"CMYK", "YCbCr", "LAB", "HSV"}:
            return np.asarray(self.image.convert("RGB"))
        return self._without_alpha(self._stored())

    def numbers(self) -> Values:
        """Return the stored numbers without alpha, (height, width[, 3]).

        Of a palette these are its indices, for they are the ids; but where black and white are all that occurs, 0 and
        255: tools differ in which of the two comes first. Raises `UnsuitableError` where another index than 0 is black.
        """
        if self._is_palette:
            return self._ids()
        values = self._without_alpha(self._stored())
        step = GREY_STEPS.get(self.packing)
        return values if step is None else values // step

    def alpha_shape(self) -> Pixels | None:
        """Return 1 where alpha is above 0 if alpha varies and the colour does not: a brush stroke. None otherwise."""
        bands = self.image.getbands()
        if bands[-1] != "A" and "transparency" not in self.image.info:
            return None
        alpha = np.asarray(self.image.convert("RGBA"))[..., 3] if bands[-1] != "A" else self._stored()[..., -1]
        if (alpha > 0).all() or not alpha.any():
            return None
        colour = self.colour()
        varies = (colour != colour[:1, :1]).any()
        return None if varies else np.asarray(alpha > 0, np.uint8)

    @property
    def _is_palette(self) -> bool:
        return self.image.mode in {"P", "PA"}

    @property
    def _is_deep(self) -> bool:
        """Whether PIL keeps only the upper 8 of 16 bits."""
        return ";16" in self.packing and not self.image.mode.startswith("I")

    @property
    def _is_signed(self) -> bool:
        return self.image.mode == "L" and self.tags.get(SAMPLE_FORMAT, (1,))[0] == 2

    def _stored(self) -> Values:
        if self._is_deep:
            return _all_bits(self.data, self.image)
        values = np.asarray(self.image)
        if self._is_signed:
            values = (255 - values if self.white_is_zero else values).view(np.int8)  # PIL inverts where 0 is white
        elif self.image.mode == "I" and self.packing.startswith("I;32") and "S" not in self.packing:
            values = values.view(np.uint32)
        return values

    def _without_alpha(self, values: Values) -> Values:
        if values.ndim == 2:
            return values
        return values[..., 0] if values.shape[2] == 2 else values[..., :3]

    def _palette(self) -> Pixels:
        """Return the colours of the palette, (256, 3)."""
        colours = self.tags.get(COLOUR_MAP)
        if colours is None:
            found = np.array(self.image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        else:
            values = np.array(colours).reshape(3, -1).T
            # Some programs write 8 bits where 16 are due.
            found = (values if values.max(initial=0) <= 255 else values // 256).astype(np.uint8)
        table = np.zeros((256, 3), np.uint8)
        table[: len(found)] = found[:256]
        return table

    def _indices(self) -> Pixels:
        return np.asarray(self.image.getchannel(0), np.uint8)

    def _ids(self) -> Pixels:
        indices, table = self._indices(), self._palette()
        used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
        grey = table[used].max(axis=1)
        if (table[used] == grey[:, None]).all() and len(used) == 2 and set(grey.tolist()) == {0, 255}:
            return np.asarray(table[indices, 0])
        if table[0].any() and not grey[used > 0].all():
            raise UnsuitableError(
                f"has a palette in which 0 is the colour {tuple(table[0].tolist())} and another number is black, so "
                "what is background is unclear; allowed: 0 is black; write ids without a palette"
            )
        return indices


def open_raster(data: bytes) -> Raster:
    """Open and decode a file. Raises what PIL raises, and `UnsuitableError` for several pages."""
    from PIL import Image

    image: Image.Image = Image.open(BytesIO(data))
    packing = _packing(image)  # before anything that loads the image
    _check_single(image)
    tags = dict(getattr(image, "tag_v2", {}))
    orientation = int(image.getexif().get(ORIENTATION, 1) or 1)
    image.load()
    if orientation not in _TURNED_BACK:
        orientation = 1
    elif image.format == "TIFF":  # the only format that PIL turns when it loads
        image = image.transpose(Image.Transpose[_TURNED_BACK[orientation]])
    return Raster(data=data, image=image, packing=packing, orientation=orientation, tags=tags)


def _all_bits(data: bytes, image: "Image") -> Values:
    """Decode 16 bits a channel, of which PIL keeps 8, as (height, width, 3) RGB or with alpha (height, width, 4)."""
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # ignores the EXIF orientation
    if values is None or values.shape[:2] != image.size[::-1]:
        raise ValueError("its 16 bits a channel cannot be decoded")
    return np.asarray(values[..., [2, 1, 0, 3][: values.shape[2]]] if values.ndim == 3 else values)


def _check_single(image: "Image") -> None:
    """Refuse several pages; a smaller copy of the same picture, and the second picture of a phone's JPEG, are none."""
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format == "MPO":
        return
    if image.format == "TIFF":
        frames = 0
        for page in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(page)
            frames += not int(image.tag_v2.get(SUBFILE, 0)) & 1  # type: ignore[attr-defined]
        image.seek(0)
    if frames > 1:
        raise UnsuitableError(f"has {frames} pages or frames; allowed: one; save each one as a file")


def _packing(image: "Image") -> str:
    tile = getattr(image, "tile", None) or [None]
    args = tile[0][3] if tile[0] else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    return raw if isinstance(raw, str) else ""
