"""What the C library does with memory that was freed: only a process of its own can tell."""

import platform
import subprocess
import sys

import pytest

STEPS, BUFFERS, BYTES = 20, 4, 8 * 2**20
CODE = f"""
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from cluster.allocator import keep_freed

def step():
    buffers = [np.full({BYTES}, 1, np.uint8) for _ in range({BUFFERS})]

def steps():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({STEPS}):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert sys.argv[1] == "as it is" or keep_freed()
print(ThreadPoolExecutor(1).submit(steps).result())
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", CODE, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc")
def test_what_a_step_frees_serves_the_next_one() -> None:
    pages = STEPS * BUFFERS * BYTES // 4096
    assert _faults("kept") < 0.1 * pages < _faults("as it is")
