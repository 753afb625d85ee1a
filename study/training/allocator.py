"""How a process that trains on a processor holds its memory."""

import ctypes
from contextlib import suppress
from typing import Final

M_TRIM_THRESHOLD: Final = -1
M_TOP_PAD: Final = -2
M_MMAP_MAX: Final = -4
PAD_BYTES: Final = 64 * 2**20
"""What a heap grows by; a thread's heap that is no larger is not given back either."""


def keep_freed() -> None:
    """Let glibc's allocator keep what this process frees; others are left as they are (`man mallopt`).

    A training step frees what it takes. By default the pages go back to the system, which clears and maps them again
    a step later: up to a tenth of a step. In exchange a process stays as large as its largest stage made it. Out of
    reach are single blocks of more than 64 MiB: a thread's heap has no room for them.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_TOP_PAD, PAD_BYTES), (M_TRIM_THRESHOLD, -1), (M_MMAP_MAX, 0)):
            mallopt(parameter, value)
