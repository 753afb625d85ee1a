"""Measure what the platform itself costs: `python -m tests.bench [--quick] [--only NAME] [-o FILE]`.

Figures are processor seconds, ratios, seconds a unit, or shares of simulated studies; median and spread over
repeats. Nothing is asserted: machines are noisy.
"""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench.augmentation import augmentation
from tests.bench.coverage import coverage
from tests.bench.figure import Figure
from tests.bench.orchestration import idle_stages
from tests.bench.planning import large_plan, start
from tests.bench.tables import large_table
from tests.bench.training import loop

BENCHES: Mapping[str, Callable[..., Iterator[Figure]]] = {
    "start": start,
    "plan": large_plan,
    "stages": idle_stages,
    "loop": loop,
    "augmentation": augmentation,
    "table": large_table,
    "coverage": coverage,
}
LINE = "{:<72} {:>8} {:>9} {:>9} {:>9} {:>7}"


def main() -> None:
    """Run the chosen benches, print a table, write the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats of smaller work")
    parser.add_argument("--only", choices=BENCHES, action="append", help="repeatable; default: all")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench.json"))
    chosen = parser.parse_args()
    print(LINE.format("figure", "unit", "median", "min", "max", "goal"))  # noqa: T201
    records = []
    for name in chosen.only or BENCHES:
        for figure in BENCHES[name](quick=chosen.quick):
            records.append(figure.record())
            print(_line(records[-1]), flush=True)  # noqa: T201
    written = {"quick": chosen.quick, "machine": _machine(), "figures": records}
    chosen.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def _line(record: Mapping[str, Any]) -> str:
    numbers = (f"{record[key]:.3g}" for key in ("median", "min", "max"))
    return LINE.format(record["name"], record["unit"], *numbers, "" if record["goal"] is None else record["goal"])


def _machine() -> dict[str, Any]:
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "ray", "numpy", "albumentations")}
    return {"processors": os.cpu_count(), "python": platform.python_version(), "libraries": libraries}


if __name__ == "__main__":
    main()
