"""Figures of a search leave the style of other figures alone and agree with Optuna."""

from pathlib import Path

import matplotlib as mpl
import optuna
import pytest
from matplotlib.figure import Figure
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from results import figures
from study.search.plots import draw, search_figures

GROUP = figures.Group(title="segment", lines=["1 stage"], parent=None, link="", ends=["none"], shared=1)


def search(direction: str, trials: int = 20) -> optuna.Study:
    """A search whose best trials have the highest `lr` and any `dice`."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))

    def value(trial: optuna.Trial) -> float:
        trial.suggest_float("target.loss.dice", 0.0, 1.0)
        lr = trial.suggest_float("target.optimizer.lr", 1e-4, 1e-1, log=True)
        return lr if direction == "maximize" else -lr

    study.optimize(value, n_trials=trials)
    return study


def test_figures_of_a_search_do_not_change_the_style_of_other_figures(tmp_path: Path) -> None:
    before, graph = dict(mpl.rcParams), figures.svg(figures.pathway_graph([GROUP]))
    assert len(draw(search("maximize"), ["val/mean_iou"], tmp_path, "all arms")) == 3
    assert dict(mpl.rcParams) == before
    assert figures.svg(figures.pathway_graph([GROUP])) == graph


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_is_that_of_reaching_the_best_trials(direction: str) -> None:
    study = search(direction)
    expected = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    axes = search_figures(study, ["val/mean_iou"])["importance"].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))  # type: ignore[attr-defined]
    assert drawn == pytest.approx(expected)


def test_a_search_by_two_metrics_has_a_pareto_front_and_named_axes() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (trial.suggest_float("lr", 0.0, 1.0), trial.params["lr"]), n_trials=3)
    front: Figure = search_figures(study, ["val/mean_iou", "parameters"])["front"]
    assert front.axes[0].get_xlabel() == "Validation mean IoU"
    assert front.axes[0].get_ylabel() == "Number of parameters"


def test_a_search_with_one_complete_trial_has_no_figures() -> None:
    assert search_figures(search("maximize", trials=1), ["val/mean_iou"]) == {}
