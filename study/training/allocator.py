"""Memory allocator settings for training on CPUs."""

import ctypes
from contextlib import suppress
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_MAX: Final = -4
PAD_BYTES: Final = 64 * 2**20
"""Growth of a heap; heaps of threads up to this size are not returned to the system."""


def keep_freed_memory() -> None:
    """Let glibc keep memory that this process frees (`man mallopt`); does nothing with other C libraries.

    A training step frees what it allocates. By default glibc returns the pages to the system, which clears and maps
    them again in the next step: up to 10 % of the time of a step. In exchange a process keeps the memory of its
    largest stage. Blocks of more than 64 MiB are not affected: they do not fit into the heap of a thread.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_TOP_PAD, PAD_BYTES), (M_TRIM_THRESHOLD, -1), (M_MMAP_MAX, 0)):
            mallopt(parameter, value)
