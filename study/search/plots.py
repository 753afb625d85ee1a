"""Figures of the searches of a study: history, parameter importance, parallel coordinates, Pareto front."""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from results import figures
from results.schema import metric_title
from study.search.journal import open_journal
from study.store.documents import read_plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_TRIALS = 2
"""Minimum number of complete trials for a figure."""


def draw(study: optuna.Study, metrics: Sequence[str], folder: Path, name: str) -> list[Path]:
    """Write the figures of one search and return their paths."""
    paths = []
    for kind, figure in search_figures(study, metrics).items():
        paths.append(plot_path(folder, name, kind))
        figures.save(figure, paths[-1])
    return paths


def plot_path(folder: Path, name: str, kind: str) -> Path:
    """Return the path of a figure of a search; `kind` is history, importance, parallel or front."""
    return folder / f"{file_stem(name)}-{kind}.png"


def file_stem(name: str) -> str:
    """Return the name of a search as part of the name of a file."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")


def searches_of(folder: Path) -> Iterator[tuple[str, optuna.Study, Sequence[str]]]:
    """Yield name, Optuna study and metrics of each search that has started, from the journal of a study.

    Raises `AlteredFileError`.
    """
    journal = open_journal(folder, create=False)
    if journal is None:
        return
    started = {study.study_name for study in journal.get_all_studies()}
    for search in (read_plan(folder) or {}).get("searches") or ():
        if search["study"] in started:
            study = optuna.load_study(study_name=search["study"], storage=journal)
            yield search["name"], study, search["metrics"]


def search_figures(study: optuna.Study, metrics: Sequence[str]) -> "dict[str, Figure]":
    """Return the figures of a search by kind; empty with fewer than two complete trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS:
        return {}
    labels = [metric_title(metric) for metric in metrics]
    maximised = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
    trials = [figures.TrialValues(number=t.number, values=t.values, settings=t.params) for t in complete]
    drawn = {
        "history": figures.search_history(trials, label=labels[0], maximised=maximised[0]),
        "parallel": figures.parallel_settings(trials, label=labels[0], logarithmic=_logarithmic(complete)),
    }
    if importances := _importances(study, complete):
        drawn["importance"] = figures.setting_importance(importances)
    if len(metrics) > 1:
        drawn["front"] = figures.pareto_front(trials, labels=labels, maximised=maximised)
    return drawn


def _importances(study: optuna.Study, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return the importance of the settings that vary, by an evaluator for trials with different settings."""
    shared = set.intersection(*(set(trial.params) for trial in complete))
    varied = [name for name in sorted(shared) if len({str(trial.params[name]) for trial in complete}) > 1]
    if not varied:
        return {}
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0
    with warnings.catch_warnings():  # the evaluator says that low values of a target are the better ones, as they are
        warnings.simplefilter("ignore", UserWarning)
        return get_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), params=varied, target=lambda trial: sign * trial.values[0]
        )


def _logarithmic(trials: Sequence[FrozenTrial]) -> list[str]:
    kinds = {name: kind for trial in trials for name, kind in trial.distributions.items()}
    return [name for name, kind in kinds.items() if isinstance(kind, FloatDistribution | IntDistribution) and kind.log]
