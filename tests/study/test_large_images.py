"""Slides of 20,000 x 20,000 pixels are checked, trained on, scored and predicted within 4 GiB."""

import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import tifffile
import yaml

from tests.support.slides import write_slides

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(3 * 3600)]

SIDE = 20_000
LIMIT_BYTES = 4 * 2**30


def peak_bytes(process: int) -> int:
    """Return the largest resident memory that a process has had, 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


def study(*words: str | Path) -> int:
    """Run a command and return the largest peak of it and of all its child processes."""
    command = psutil.Popen([sys.executable, "-m", "study", *map(str, words)])
    peak = 0
    while command.poll() is None:
        with suppress(psutil.Error):
            peak = max([peak, *(peak_bytes(process.pid) for process in [command, *command.children(recursive=True)])])
        time.sleep(0.2)
    assert command.returncode == 0
    return peak


def test_a_study_of_slides_stays_within_its_memory(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("peaks are read from /proc")
    data = write_slides(tmp_path / "data", 2, SIDE)
    document = {
        "name": "slides",
        "data": {"slides": {"source": "folder", "root": str(data), "split": {"test": {"images": 1}}}},
        "image": {"size": 512, "channels": 3, "fit": "patch"},
        "stages": {"segment": {"task": "segmentation", "data": "slides", "steps": 10, "batch_size": 2}},
        "pathways": {"none": ["segment"]},
        "compare": {"architecture": ["linknet"], "backbone": ["tu-mobilenetv3_small_050"], "folds": 1},
        "metrics": {"tolerance": 2.0},
        "keep": {"weights": "all"},
    }
    file, out = tmp_path / "slides.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    places = ["--cache", tmp_path / "cache"]
    peaks = {
        "check": study("data", "check", "folder", data, "-o", tmp_path / "check.png", *places),
        "run": study("run", file, "--storage", tmp_path / "runs", *places),
        "predict": study(
            "predict", "slides", data / "images" / "s0.tif", "-o", out, "--overlay", "--storage", tmp_path / "runs",
            *places,
        ),
    }  # fmt: skip
    sys.stderr.write(f"peaks in GiB: { {name: round(peak / 2**30, 2) for name, peak in peaks.items()} }\n")
    with tifffile.TiffFile(out / "s0.tif") as mask:
        assert mask.pages.first.shape == (SIDE, SIDE)
    assert max(peaks.values()) < LIMIT_BYTES, peaks
