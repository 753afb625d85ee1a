"""Figures of a study. Each function returns a matplotlib figure; `save` writes it as svg, pdf or png."""

from results.figures.bars import Interval, class_bars
from results.figures.cases import OutlinedCase, outline_cases, shown_classes
from results.figures.curve import curves, learning_curve
from results.figures.drawing import FORMATS, is_intact_png, save, svg
from results.figures.paired import Pairs, paired_differences
from results.figures.pathways import Group, pathway_graph
from results.figures.pixels import confusion, reliability, roc
from results.figures.search import TrialValues, parallel_settings, pareto_front, search_history, setting_importance
from results.figures.style import PAPER, REPORT, SLIDES, FigureStyle, figure_style
from results.figures.training import History, training_curves

__all__ = [
    "FORMATS",
    "PAPER",
    "REPORT",
    "SLIDES",
    "FigureStyle",
    "Group",
    "History",
    "Interval",
    "OutlinedCase",
    "Pairs",
    "TrialValues",
    "class_bars",
    "confusion",
    "curves",
    "figure_style",
    "is_intact_png",
    "learning_curve",
    "outline_cases",
    "paired_differences",
    "parallel_settings",
    "pareto_front",
    "pathway_graph",
    "reliability",
    "roc",
    "save",
    "search_history",
    "setting_importance",
    "shown_classes",
    "svg",
    "training_curves",
]
