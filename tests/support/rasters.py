"""Image files written byte by byte, with features that common libraries do not write."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def png(values: np.ndarray, *, depth: int, kind: int = 0) -> bytes:
    """Return packed samples (height, row bytes) of a bit depth as PNG of a colour type, one filter byte per row."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    width = values.shape[1] * 8 // depth // samples
    header = struct.pack(">IIBBBBB", width, len(values), depth, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in values)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(values: np.ndarray, **tags: int | tuple[int, ...]) -> bytes:
    """Return one strip of (height, width[, 3]) values as TIFF; `tags` by the names of `TAGS`."""
    samples = values.shape[2] if values.ndim == 3 else 1
    entries: dict[int, tuple[int, ...]] = {
        256: (values.shape[1],), 257: (values.shape[0],), 258: (8 * values.itemsize,) * samples, 259: (1,),
        262: (2 if samples == 3 else 1,), 273: (8,), 277: (samples,), 278: (values.shape[0],), 279: (values.nbytes,),
        339: ({"u": 1, "i": 2, "f": 3}[values.dtype.kind],) * samples,
    }  # fmt: skip
    entries |= {TAGS[name]: value if isinstance(value, tuple) else (value,) for name, value in tags.items()}
    data, directory, extra = values.tobytes(), b"", b""
    start = 8 + len(data) + len(data) % 2
    end = start + 2 + 12 * len(entries) + 4
    for tag, entry_values in sorted(entries.items()):
        long = max(entry_values) > 65535
        packed = struct.pack(f"<{len(entry_values)}{'I' if long else 'H'}", *entry_values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", end + len(extra)), extra + packed
        directory += struct.pack("<HHI", tag, 4 if long else 3, len(entry_values)) + packed.ljust(4, b"\0")
    header = struct.pack("<2sHI", b"II", 42, start)
    return header + data + b"\0" * (len(data) % 2) + struct.pack("<H", len(entries)) + directory + b"\0" * 4 + extra


TAGS = {"photometric": 262, "offsets": 273, "orientation": 274, "counts": 279, "planar": 284, "colours": 320}


def palette(path: Path, indices: np.ndarray, colours: list[int]) -> Path:
    """Write (height, width) indices with a palette of (red, green, blue) triples, in the format of the suffix."""
    image = Image.new("P", indices.shape[::-1])
    image.putpalette(colours)
    image.putdata(indices.ravel().tolist())
    image.save(path)
    return path
