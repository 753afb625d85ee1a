"""Volumes that were decoded last, so that reading them slice by slice decodes each one once."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock

from datasets.source import Pixels


class DecodedVolumes:
    """Keeps the volumes used last; thread-safe. Threads that need the same volume wait for one of them to decode it.

    Args:
        decode: Decodes the volume with a key, (slices, height, width[, 3]).
        capacity: Number of volumes that are kept.
    """

    def __init__(self, decode: Callable[[str], Pixels], capacity: int) -> None:
        self._decode, self._capacity = decode, capacity
        self._volumes: OrderedDict[str, Future[Pixels]] = OrderedDict()
        self._lock = Lock()

    def slice(self, key: str, number: int) -> Pixels:
        """Return a slice of a volume. Raises the errors of `decode`."""
        with self._lock:
            volume = self._volumes.get(key)
            is_new = volume is None
            if volume is None:
                volume = self._volumes[key] = Future()
            self._volumes.move_to_end(key)
            while len(self._volumes) > self._capacity:
                self._volumes.popitem(last=False)
        if is_new:
            self._fill(key, volume)
        pixels: Pixels = volume.result()[number]
        return pixels

    def _fill(self, key: str, volume: "Future[Pixels]") -> None:
        try:
            volume.set_result(self._decode(key))
        except BaseException as error:  # noqa: BLE001 - raised by `Future.result` in every waiting thread
            volume.set_exception(error)
            with self._lock:
                self._volumes.pop(key, None)

    def clear(self) -> None:
        """Free the memory."""
        with self._lock:
            self._volumes.clear()
