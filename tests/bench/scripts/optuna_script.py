"""The study with Optuna and a plain loop: `python -m tests.bench.scripts.optuna_script STUDY.json OUT.json`."""

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.bench.scripts.chain import Machine, run_chain


def main() -> None:
    """Queue every combination, then train them in one process or in several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="of each loader")
    parser.add_argument("--trials", type=int, help="number of queued trials to run in this process")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = json.loads(chosen.study.read_text())
    space = {"pathway": list(study["pathways"]), "fold": list(range(study["folds"])), "fraction": study["fractions"]}
    storage = JournalStorage(JournalFileBackend(f"{chosen.output}.journal"))
    trials = optuna.create_study(study_name="by-hand", storage=storage, direction="maximize", load_if_exists=True)
    machine = Machine(threads=(os.cpu_count() or 1) // chosen.processes, workers=chosen.workers)

    def objective(trial: optuna.Trial) -> float:
        values = {name: trial.suggest_categorical(name, choices) for name, choices in space.items()}
        return run_chain(study, **values, machine=machine)

    if chosen.trials is not None:
        trials.optimize(objective, n_trials=chosen.trials)
        return
    combinations = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    for values in reversed(combinations):  # long chains first
        trials.enqueue_trial(values)
    shares = [len(combinations[number :: chosen.processes]) for number in range(chosen.processes)]
    command = [sys.executable, "-m", "tests.bench.scripts.optuna_script", *sys.argv[1:]]
    workers = [subprocess.Popen([*command, "--trials", str(share)]) for share in shares[1:]]
    trials.optimize(objective, n_trials=shares[0])
    assert not any(process.wait() for process in workers)
    chosen.output.write_text(json.dumps([{**trial.params, "mean_iou": trial.value} for trial in trials.trials]))


if __name__ == "__main__":
    main()
