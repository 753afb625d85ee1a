"""Pictures of a search by Optuna's own plotting: history, importance, parallel coordinates, the front of several."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

FEWEST = 2
"""Complete trials below which there is nothing to see."""


def draw(study: optuna.Study, metrics: Sequence[str], folder: Path, name: str) -> list[Path]:
    """Write the pictures of one search and return their places."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST:
        return []
    import matplotlib as mpl

    mpl.use("Agg")
    return [_saved(make, place_of(folder, name, kind)) for kind, make in _pictures(study, metrics, complete).items()]


def place_of(folder: Path, name: str, kind: str) -> Path:
    """Return where one picture of a search lies: history, importance, parallel or front."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")
    return folder / f"{stem}-{kind}.png"


def _pictures(
    study: optuna.Study, metrics: Sequence[str], complete: Sequence[FrozenTrial]
) -> dict[str, Callable[[], Any]]:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    def first(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    told: dict[str, Any] = {"target": first, "target_name": metrics[0]}
    found: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(study, **told),
        "parallel": lambda: plots.plot_parallel_coordinate(study, **told),
    }
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in sorted(shared) if len({str(trial.params[name]) for trial in complete}) > 1]
    if varied:
        # The evaluator that needs no further library, and takes trials with settings of their own.
        found["importance"] = lambda: plots.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=varied, **told
        )
    if len(metrics) > 1:
        found["front"] = lambda: plots.plot_pareto_front(study, target_names=list(metrics))
    return found


def _saved(make: Callable[[], Any], place: Path) -> Path:
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():  # Optuna's plotting is experimental, and lays out as matplotlib lets it
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        axes = make()
        figure = getattr(axes, "figure", None) or plt.gcf()
        figure.savefig(place, dpi=120, bbox_inches="tight")
    plt.close("all")
    return place
