"""The catalog's studies, cut short, through the real command line; on real images where they are at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REAL = (ROOT / os.environ.get("STUDY_REAL_DATA", "../shared/data")).resolve()
SHORT = ("stages.segment.steps=2", "compare.labelled_fraction=[1.0]", "compare.folds=2")
PRESETS = {
    "demo": ("stages.classify.epochs=1", "stages.boxes.epochs=1"),
    "ccxs_two_step_small": (
        "stages.classify.epochs=1", "stages.encode.epochs=1", "stages.lungs.epochs=1",
        f"data.ccxs.root={REAL / 'ccxs'}", f"data.boxes.root={REAL / 'gb-lung-boxes'}",
    ),
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


def study(*words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "study", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_preset_is_tried_here() -> None:
    assert {path.stem for path in (ROOT / "study" / "catalog").glob("*.yaml")} == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_runs_to_a_table_with_every_arm(name: str, tmp_path: Path) -> None:
    if name.startswith("ccxs") and not (REAL / "ccxs").is_dir():
        pytest.skip(f"no real images at {REAL}; set STUDY_REAL_DATA")
    changes = [word for change in (*SHORT, *PRESETS[name]) for word in ("--set", change)]
    places = ["--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    file = f"study/catalog/{name}.yaml"
    planned = json.loads(study("plan", file, "--json", *places, *changes))
    study("run", file, *places, *changes)
    rows = json.loads(study("table", planned["study"], "--format", "json", "--storage", str(tmp_path / "runs")))
    assert len(rows) == planned["arms"]
    assert all(row["n"] == 2 and 0 <= row["mean"] <= 1 for row in rows)
