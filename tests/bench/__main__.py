"""Benchmarks of speed and of statistical validity: `python -m tests.bench [PART ...] [--quick] [-o FILE]`.

Figures are ratios of two alternating sides, seconds, or shares of simulated studies; median and spread over
rrepeats, beside the goal and the last run. Nothing is asserted, because timings of a machine vary.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import record
from tests.bench.augmentation import augmentation
from tests.bench.core_use import core_use
from tests.bench.coverage import coverage
from tests.bench.figure import Figure
from tests.bench.forecasts import forecasts
from tests.bench.frozen_features import frozen_features
from tests.bench.inputs import rates
from tests.bench.large_inputs import large_inputs
from tests.bench.one_stage import one_stage
from tests.bench.orchestration import idle_stages, stages_on_nodes
from tests.bench.planning import large_plan, start
from tests.bench.resume import resume
from tests.bench.sharing import large_index, memory
from tests.bench.tables import large_table
from tests.bench.whole_study import whole_study

TrainingSetup = Callable[..., Iterator[Figure]]
PARTS: Mapping[str, Sequence[TrainingSetup]] = {
    "whole_study": (whole_study,),
    "one_stage": (one_stage,),
    "input": (rates, memory, large_index),
    "augmentation": (augmentation,),
    "core_use": (core_use,),
    "frozen_features": (frozen_features,),
    "overheads": (start, large_plan, stages_on_nodes, idle_stages, resume, large_table, large_inputs),
    "coverage": (coverage,),
    "forecasts": (forecasts,),
}
SPEED = tuple(part for part in PARTS if part not in ("coverage", "forecasts"))
"""Parts that run by default; the simulation of all designs takes as long as all of these."""
HISTORY = Path("bench-history.jsonl")


def main() -> None:
    """Run the selected parts, print a table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all but coverage and forecasts"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats of smaller work")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench.json"))
    chosen = parser.parse_args()
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"PART is {unknown[0]}; allowed: {', '.join(PARTS)}; correct the name")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    context, last = record.about(quick=chosen.quick), record.last_figures(HISTORY, quick=chosen.quick)
    figures: list[record.Record] = []
    try:
        figures.extend(_measured(chosen.parts or SPEED, last, quick=chosen.quick))
    finally:  # figures measured before an interrupt or an error are written
        record.keep(chosen.output, HISTORY, context | {"load_after": os.getloadavg()}, figures)
    _conclude(figures)


def _measured(
    parts: Sequence[str], last: Mapping[tuple[str, str], record.Record], *, quick: bool
) -> Iterator[record.Record]:
    for part in parts:
        _say(f"\n{part}\n{record.heading()}")
        for bench in PARTS[part]:
            begun = time.monotonic()
            for figure in bench(quick=quick):
                entry = figure.record() | {"part": part}
                _say(record.line(entry, last.get((figure.name, figure.unit))))
                yield entry
            _say(f"({time.monotonic() - begun:.0f} s)")


def _conclude(figures: Sequence[record.Record]) -> None:
    """Print how many goals are met."""
    with_goal = [entry for entry in figures if entry["goal"] is not None]
    missed = [entry for entry in with_goal if not entry["met"]]
    _say(f"\n{len(with_goal) - len(missed)} of {len(with_goal)} goals met" + ("; missed:" if missed else ""))
    for entry in missed:
        _say(record.line(entry, None))
        if entry["why"]:
            _say(f"    {entry['why']}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
