"""How a process that trains holds its memory."""

import ctypes
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_MAX: Final = -4
M_ARENA_MAX: Final = -8
PAD_BYTES: Final = 64 * 2**20
"""What a heap grows by, and keeps free."""


def keep_freed() -> bool:
    """Let the C library's allocator keep for this process what it frees; return whether it can be told so.

    A training step frees what it takes. By default the pages go back to the system, which clears and maps them again
    a step later: up to a tenth of a step on processors. Fewer heaps then hold less in all. Threads that begin later
    share one (`man mallopt`).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    told = [
        mallopt(M_ARENA_MAX, 1),
        mallopt(M_TOP_PAD, PAD_BYTES),
        mallopt(M_TRIM_THRESHOLD, -1),
        mallopt(M_MMAP_MAX, 0),
    ]
    return all(told)
