"""The study with Ray Tune, one trial per chain: `python -m tests.bench.scripts.tune_script STUDY.json OUT.json`."""

import argparse
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tests.bench.scripts.chain import Machine, run_chain


def trial(config: dict[str, Any], study: dict[str, Any], workers: int) -> None:
    """Train one chain on one CPU core."""
    machine = Machine(threads=1, workers=workers)
    score = run_chain(study, config["pathway"], config["fold"], config["fraction"], machine)
    tune.report({"mean_iou": score})


def main() -> None:
    """Train as many trials concurrently as there are CPU cores."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--reuse-actors", action="store_true")
    parser.add_argument("--workers", type=int, default=1, help="of each loader")
    chosen = parser.parse_args()
    study = json.loads(chosen.study.read_text())
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, study=study, workers=chosen.workers), {"cpu": 1}),
            param_space={
                "pathway": tune.grid_search(list(study["pathways"])),
                "fold": tune.grid_search(list(range(study["folds"]))),
                "fraction": tune.grid_search(study["fractions"]),
            },
            tune_config=tune.TuneConfig(metric="mean_iou", mode="max", reuse_actors=chosen.reuse_actors),
            run_config=tune.RunConfig(name="by-hand", storage_path=scratch, verbose=0),
        )
        results = tuner.fit()
    rows = [{**result.config, "mean_iou": result.metrics["mean_iou"]} for result in results]
    chosen.output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
