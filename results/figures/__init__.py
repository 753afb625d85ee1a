"""Figures of a study. Each function returns a matplotlib figure; `save` writes it as svg, pdf or png."""

from results.figures.bars import Interval, class_bars
from results.figures.cases import OutlinedCase, outline_cases
from results.figures.curve import curves, learning_curve
from results.figures.drawing import FORMATS, is_intact_png, save, svg
from results.figures.paired import Pairs, paired_differences
from results.figures.pathways import Group, pathway_graph
from results.figures.pixels import confusion, reliability, roc
from results.figures.training import History, training_curves

__all__ = [
    "FORMATS",
    "Group",
    "History",
    "Interval",
    "OutlinedCase",
    "Pairs",
    "class_bars",
    "confusion",
    "curves",
    "is_intact_png",
    "learning_curve",
    "outline_cases",
    "paired_differences",
    "pathway_graph",
    "reliability",
    "roc",
    "save",
    "svg",
    "training_curves",
]
