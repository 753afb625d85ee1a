"""The bench itself is not run by tests, but it has to start."""

import subprocess
import sys


def test_the_bench_knows_its_parts() -> None:
    told = subprocess.run([sys.executable, "-m", "tests.bench", "--help"], check=True, capture_output=True, text=True)
    for part in ("whole_study", "one_stage", "input", "core_use", "overheads", "coverage"):
        assert part in told.stdout
