"""Plots of a search by Optuna: history, parameter importance, parallel coordinates, Pareto front."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

MIN_TRIALS = 2
"""Minimum number of complete trials for a plot."""


def draw(study: optuna.Study, metrics: Sequence[str], folder: Path, name: str) -> list[Path]:
    """Write the plots of one search and return their paths."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS:
        return []
    import matplotlib as mpl

    mpl.use("Agg")
    return [_save(plot, plot_path(folder, name, kind)) for kind, plot in _plots(study, metrics, complete).items()]


def plot_path(folder: Path, name: str, kind: str) -> Path:
    """Return the path of a plot of a search; `kind` is history, importance, parallel or front."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")
    return folder / f"{stem}-{kind}.png"


def _plots(
    study: optuna.Study, metrics: Sequence[str], complete: Sequence[FrozenTrial]
) -> dict[str, Callable[[], Any]]:
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as plots

    def first_value(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    options: dict[str, Any] = {"target": first_value, "target_name": metrics[0]}
    plots_by_kind: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(study, **options),
        "parallel": lambda: plots.plot_parallel_coordinate(study, **options),
    }
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in sorted(shared) if len({str(trial.params[name]) for trial in complete}) > 1]
    if varied:
        # This evaluator needs no further package and supports trials with different parameters.
        plots_by_kind["importance"] = lambda: plots.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=varied, **options
        )
    if len(metrics) > 1:
        plots_by_kind["front"] = lambda: plots.plot_pareto_front(study, target_names=list(metrics))
    return plots_by_kind


def _save(plot: Callable[[], Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():  # Optuna's plotting is experimental, and matplotlib warns about layout
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        axes = plot()
        figure = getattr(axes, "figure", None) or plt.gcf()
        figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close("all")
    return path
