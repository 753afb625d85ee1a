"""What the C library does with freed memory, tested in a separate process."""

import platform
import subprocess
import sys

import pytest

BUFFERS, BYTES = 4, 8 * 2**20
CODE = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import psutil
from study.training.allocator import keep_freed_memory

def step():
    buffers = [np.full({BYTES}, 1, np.uint8) for _ in range({BUFFERS})]

def kept():
    for _ in range(4):
        step()
    return psutil.Process().memory_info().rss - began

with ThreadPoolExecutor(20) as others:  # whose heaps a later thread may get
    list(others.map(lambda _: bytearray(1000), range(100)))
began = psutil.Process().memory_info().rss
if sys.argv[1] == "kept":
    keep_freed_memory()
print(ThreadPoolExecutor(1).submit(kept).result())
"""


def _held_bytes(mode: str) -> int:
    """Return the bytes that a process holds after all is freed."""
    command = [sys.executable, "-c", CODE, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc")
def test_memory_freed_by_a_step_stays_with_the_process() -> None:
    allocated = BUFFERS * BYTES
    assert _held_bytes("as it is") < 0.75 * allocated < _held_bytes("kept")
