"""The catalog, shortened, through the real command line: on data in the published layouts, and on real images.

Lengths, sizes and the location of the data change; every stage, link, loss and pathway is the preset's.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.presets import CATALOG, PRESETS, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


def study(*words: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "study", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_preset_is_tested() -> None:
    assert {path.stem for path in CATALOG.glob("*.yaml")} == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_runs_to_a_table_with_every_arm(name: str, tmp_path: Path) -> None:
    changes = [word for change in PRESETS[name](tmp_path / "data") for word in ("--set", change)]
    places = ["--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    file = f"study/catalog/{name}.yaml"
    planned = json.loads(study("plan", file, "--json", *places, *changes))
    study("run", file, *places, *changes)
    command = [
        "table",
        planned["study"],
        "--metric",
        "mean_iou",
        "--format",
        "json",
        "--storage",
        str(tmp_path / "runs"),
    ]
    rows = json.loads(study(*command))
    assert len(rows) == planned["cells"]
    assert all(row["n"] == 2 and 0 <= row["mean"] <= 1 for row in rows)


def run(name: str, place: Path) -> None:
    """Run a preset, shortened."""
    changes = [word for change in PRESETS[name](place / "data") for word in ("--set", change)]
    places = ["--storage", str(place / "runs"), "--cache", str(place / "cache")]
    study("run", f"study/catalog/{name}.yaml", *places, *changes)


def test_published_values_are_reported_beside_ours(tmp_path: Path) -> None:
    run("xnet_bone", tmp_path)
    command = ["table", "xnet-bone", "--storage", str(tmp_path / "runs"), "--published", "--metric", "f1"]
    lines = study(*command, "--class", "weighted").splitlines()
    assert ["| xnet |" in line for line in lines if "[published 0.920]" in line] == [True]
    held_back = study(*command[:-2], "--metric", "threshold", "--class", "soft tissue", "--split", "test_thresholded")
    assert "| xnet | 0." in held_back


def test_the_dice_of_the_competition_is_reported_beside_dice_with_empty_masks(tmp_path: Path) -> None:
    run("two_stage_pneumothorax", tmp_path)
    command = ["table", "two-stage-pneumothorax", "--storage", str(tmp_path / "runs"), "--published"]
    lines = study(*command, "--metric", "dice_empty_is_one").splitlines()
    assert ["| experiment_4 |" in line for line in lines if "[published 0.836]" in line] == [True]
    assert "[published" not in study(*command, "--metric", "dice", "--aggregation", "case")


def test_published_localisation_errors_are_reported_beside_those_of_the_stage(tmp_path: Path) -> None:
    changes = [word for change in PRESETS["localise_then_segment"](tmp_path / "data") for word in ("--set", change)]
    places = ["--storage", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    command = ["table", "localise-then-segment", "--stage", "locate", "--published", "--format", "json", *places[:2]]
    study("run", "study/catalog/localise_then_segment.yaml", *places, *changes, "--set", "validation.min_cases=1")
    first = study(*command)
    study("run", "study/catalog/localise_then_segment.yaml", *places, *changes, "--set", "validation.min_cases=1")
    assert study(*command) == first
    rows = {(row["metric"], row["split"]): row for row in json.loads(first)}
    assert rows["mse_pixels", "validation"]["published"] == 132.16
    assert rows["mse_pixels", "test"]["published"] == 206.15
    assert all(row["mean"] > 0 and row["n"] == 1 for row in rows.values())


def test_annotation_is_compared_at_equal_hours(tmp_path: Path) -> None:
    run("annotation_budget", tmp_path)
    shown = study("table", "annotation-budget", "--hours", "--metric", "dice", "--storage", str(tmp_path / "runs"))
    assert all(f"| {rest} |" in shown for rest in ("none", "box", "points", "scribble", "class"))
