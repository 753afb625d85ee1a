"""Outputs of a run: a table for readers, a file for programs, and a line of history that shows a slowdown."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.figure import is_worse

LIBRARIES = ("torch", "ray", "numpy", "albumentations", "optuna", "segmentation-models-pytorch")
LINE = "{:<78} {:>6} {:>4} {:>9} {:>9} {:>9} {:>8} {:>6} {:>9}"
SLOWER = 0.1
"""A figure is reported as worse beyond the spread of the last run by this fraction."""

Record = Mapping[str, Any]


def heading() -> str:
    """Return the line above the figures."""
    return LINE.format("figure", "unit", "runs", "median", "min", "max", "goal", "", "last")


def line(record: Record, last: Record | None) -> str:
    """Return one figure beside its goal and beside the last run of the same kind."""
    numbers = (f"{record[key]:.3g}" for key in ("median", "min", "max"))
    sign = ">=" if record["better"] == "higher" else "<="
    goal = "" if record["goal"] is None else f"{sign} {record['goal']:g}"
    met = "" if record["met"] is None else ("met" if record["met"] else "missed")
    before = "" if last is None else f"{last['median']:.3g}" + ("!" if slowed(record, last) else "")
    return LINE.format(record["name"], record["unit"], len(record["values"]), *numbers, goal, met, before).rstrip()


def slowed(record: Record, last: Record) -> bool:
    """Return whether a figure is clearly worse than all values of the last run."""
    if record["better"] == "higher":
        return is_worse(record["median"], last["min"] / (1 + SLOWER), "higher")
    return is_worse(record["median"], last["max"] * (1 + SLOWER), "lower")


def machine() -> dict[str, Any]:
    """Return what two runs must have in common for a comparison of their figures, and the load of the machine."""
    return {
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def last_figures(history: Path, *, quick: bool) -> dict[tuple[str, str], Record]:
    """Return the latest earlier record of each figure, measured in the same mode on the same number of CPU cores."""
    figures: dict[tuple[str, str], Record] = {}
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    for entry in map(json.loads, lines):
        if entry["quick"] == quick and entry["machine"]["processors"] == os.cpu_count():
            figures |= {(record["name"], record["unit"]): record for record in entry["figures"]}
    return figures


def keep(output: Path, history: Path, context: Record, figures: Sequence[Record]) -> None:
    """Write the figures, and append them to the history."""
    written = {**context, "figures": figures}
    output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    short = [{key: record[key] for key in ("name", "unit", "better", "median", "min", "max")} for record in figures]
    with history.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**context, "figures": short}) + "\n")


def about(*, quick: bool) -> dict[str, Any]:
    """Return time, commit and machine of the figures."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "commit": commit, "quick": quick, "machine": machine()}
