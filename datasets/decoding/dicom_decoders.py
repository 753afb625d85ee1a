"""Compressed DICOM pixels, decoded in processes of their own.

A damaged stream can end the process that decodes it (GDCM throws across threads, which nothing can catch); here
that ends a child, and the file is told of like any other that is broken. Children also decode side by side, which
GDCM does not within one process: it holds the interpreter's lock.
"""

import atexit
import os
import struct
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

LIMIT: Final = min(8, os.cpu_count() or 1)
PATIENCE: Final = 120.0
"""Seconds after which a child that does not answer is taken for stuck."""
_LENGTH: Final = struct.Struct("<Q")
_CODE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from datasets.decoding.dicom_decoders import serve; serve()"
)


def decode_apart(data: bytes) -> NDArray[Any]:
    """Return the stored pixels of a DICOM file's bytes. Raises `ValueError` where they cannot be decoded."""
    with _slots:
        child = _idle.pop() if _idle else _Child()
        try:
            answer = child.ask(data)
        except (EOFError, OSError) as error:
            child.end()
            raise ValueError("its pixel data is damaged: decoding it ended the decoder") from error
        _idle.append(child)
    if answer[:1] != b"\0":
        raise ValueError(answer[1:].decode(errors="replace"))
    decoded: NDArray[Any] = np.load(BytesIO(answer[1:]), allow_pickle=False)
    return decoded


class _Child:
    """One decoding process: it answers each length and bytes with a length and bytes."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _CODE, str(Path(__file__).parents[2])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def ask(self, data: bytes) -> bytes:
        """Return the answer; raises `EOFError` or `OSError` where the child ended."""
        stuck = threading.Timer(PATIENCE, self._process.kill)
        stuck.start()
        try:
            _send(self._requests, data)
            return _receive(self._answers)
        finally:
            stuck.cancel()

    def end(self) -> None:
        """Close the pipes, at which the child ends, and wait for it."""
        for pipe in (self._requests, self._answers):
            try:
                pipe.close()
            except OSError:  # what was not sent when it ended
                continue
        self._process.wait()


_slots = threading.BoundedSemaphore(LIMIT)
_idle: list[_Child] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def serve() -> None:
    """Answer requests until there are no more: what a child does."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what decoders print must not mix with answers
    while True:
        try:
            data = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            packed = BytesIO()
            np.save(packed, pixel_array(pydicom.dcmread(BytesIO(data))))
            answer = b"\0" + packed.getvalue()
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is told of its file
            answer = b"\1" + str(error).encode()
        _send(answers, answer)


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
