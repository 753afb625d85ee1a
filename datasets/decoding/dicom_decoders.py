"""Decoding of compressed DICOM pixels in subprocesses.

A damaged stream can crash the process that decodes it (GDCM throws across threads, which cannot be caught). In a
subprocess the crash becomes an error of the file. It also allows parallel decoding, as GDCM holds the GIL.
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

MAX_WORKERS: Final = min(8, os.cpu_count() or 1)
TIMEOUT_S: Final = 120.0
"""Seconds without an answer after which a worker is killed."""
_LENGTH: Final = struct.Struct("<Q")
_CODE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from datasets.decoding.dicom_decoders import serve; serve()"
)


def decode_in_subprocess(data: bytes) -> NDArray[Any]:
    """Return the stored pixels of a DICOM file. Raises `ValueError` if they cannot be decoded."""
    with _slots:
        worker = _idle.pop() if _idle else _Worker()
        try:
            answer = worker.request(data)
        except (EOFError, OSError) as error:
            worker.close()
            raise ValueError("its pixel data is damaged: decoding it ended the decoder") from error
        _idle.append(worker)
    if answer[:1] != b"\0":
        raise ValueError(answer[1:].decode(errors="replace"))
    decoded: NDArray[Any] = np.load(BytesIO(answer[1:]), allow_pickle=False)
    return decoded


class _Worker:
    """A decoding subprocess; requests and answers are length-prefixed bytes."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _CODE, str(Path(__file__).parents[2])]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def request(self, data: bytes) -> bytes:
        """Send a file and return the answer. Raises `EOFError` or `OSError` if the process exited."""
        watchdog = threading.Timer(TIMEOUT_S, self._process.kill)
        watchdog.start()
        try:
            _send(self._requests, data)
            return _receive(self._answers)
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """Close the pipes, which ends the process, and wait for it."""
        for pipe in (self._requests, self._answers):
            try:
                pipe.close()
            except OSError:  # unsent data of a process that exited
                continue
        self._process.wait()


_slots = threading.BoundedSemaphore(MAX_WORKERS)
_idle: list[_Worker] = []


@atexit.register
def _close_all() -> None:
    while _idle:
        _idle.pop().close()


def serve() -> None:
    """Decode requests from stdin until it is closed; the main function of a worker."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # output of decoders must not mix with answers
    while True:
        try:
            data = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            buffer = BytesIO()
            np.save(buffer, pixel_array(pydicom.dcmread(BytesIO(data))))
            answer = b"\0" + buffer.getvalue()
        except Exception as error:  # noqa: BLE001 - any error of a decoder is reported for its file
            answer = b"\1" + str(error).encode()
        _send(answers, answer)


def _send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_read_exactly(pipe, _LENGTH.size))
    return _read_exactly(pipe, length)


def _read_exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
