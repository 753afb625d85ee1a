"""Figures of a hyperparameter search: history, importance, parallel coordinates and Pareto front."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from results.figures.drawing import legend_below, new_figure, tidy
from results.figures.style import COLOURS, GREY, canvas_width, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class TrialValues:
    """A complete trial: its number, the values of the metrics and its settings."""

    number: int
    values: Sequence[float]
    settings: Mapping[str, Any]


@styled
def search_history(trials: Sequence[TrialValues], *, label: str, maximised: bool) -> "Figure":
    """Draw the first metric of each trial by its number, and the best value so far.

    Raises ValueError without trials.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    _require(trials)
    figure = new_figure(4.4, 3.0)
    axes = figure.subplots()
    numbers, values = [trial.number for trial in trials], [trial.values[0] for trial in trials]
    best = (np.maximum if maximised else np.minimum).accumulate(values)
    axes.plot(numbers, values, "o", color=COLOURS[0], alpha=0.7)
    axes.plot(numbers, best, color=COLOURS[1], drawstyle="steps-post")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="Trial", ylabel=label)
    tidy(axes)
    trial = Line2D([], [], marker="o", linestyle="", color=COLOURS[0], label="Complete trial")
    legend_below(figure, [trial, Line2D([], [], color=COLOURS[1], label="Best so far")])
    return figure


@styled
def setting_importance(importances: Mapping[str, float]) -> "Figure":
    """Draw the importance of each setting as a bar, the largest first. Raises ValueError without settings."""
    if not importances:
        raise ValueError("settings are none; allowed: one or more; search over a setting with several values")
    ordered = sorted(importances.items(), key=lambda item: -item[1])
    figure = new_figure(4.4, 0.7 + 0.3 * len(ordered))
    axes = figure.subplots()
    bars = axes.barh([name for name, _ in ordered], [value for _, value in ordered], 0.7, color=COLOURS[0])
    axes.bar_label(bars, [f"{value:.2f}" for _, value in ordered], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("Importance (share of the sum)")
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def parallel_settings(trials: Sequence[TrialValues], *, label: str, logarithmic: Sequence[str] = ()) -> "Figure":
    """Draw a line per trial through its settings and its first metric, coloured by that.

    Settings that a trial does not have are left out. Raises ValueError without trials.
    """
    import matplotlib as mpl

    _require(trials)
    names = [name for name in trials[0].settings if all(name in trial.settings for trial in trials)]
    natural = max(4.4, 1.3 * (len(names) + 1))
    figure = new_figure(natural, 3.2)
    axes = figure.subplots()
    values = np.array([trial.values[0] for trial in trials], dtype=np.float64)
    heights = np.stack([_heights(values), *(_heights_of(trials, name, name in logarithmic) for name in names)])
    shades = mpl.colormaps["viridis_r"](_heights(values) * 0.95)
    for index in np.argsort(values):
        axes.plot(range(len(heights)), heights[:, index], color=shades[index], alpha=0.75)
    _scale(axes, 0, f"{values.min():.3g}", f"{values.max():.3g}")
    for position, name in enumerate(names, start=1):
        low, *_, high = _sorted_levels([trial.settings[name] for trial in trials] * 2)
        _scale(axes, position, _text(low), _text(high))
    room = int(canvas_width(natural) / (len(names) + 1) / 0.085)
    titles = [_broken(title, room) for title in (label, *names)]
    axes.set_xticks(range(len(heights)), titles)
    axes.set(xlim=(-0.35, len(names) + 0.35), ylim=(-0.12, 1.12), yticks=[])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


@styled
def pareto_front(trials: Sequence[TrialValues], *, labels: Sequence[str], maximised: Sequence[bool]) -> "Figure":
    """Draw the first two metrics of each trial; the Pareto-optimal trials by all metrics are marked.

    Raises ValueError without trials.
    """
    from matplotlib.lines import Line2D

    _require(trials)
    signs = np.where(maximised, 1.0, -1.0)
    values = np.array([trial.values for trial in trials], dtype=np.float64)
    gains = values * signs
    is_dominated = [bool(((gains >= gain).all(axis=1) & (gains > gain).any(axis=1)).any()) for gain in gains]
    figure = new_figure(4.4, 3.4)
    axes = figure.subplots()
    styles: tuple[dict[str, Any], ...] = (
        {"color": COLOURS[0], "marker": "o", "alpha": 0.6, "linestyle": "", "label": "Complete trial"},
        {"color": COLOURS[1], "marker": "D", "linestyle": "", "label": "Pareto-optimal trial"},
    )
    for style, is_shown in zip(styles, (is_dominated, [not value for value in is_dominated]), strict=True):
        axes.plot(values[is_shown, 0], values[is_shown, 1], **style)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    tidy(axes, grid="both")
    legend_below(figure, [Line2D([], [], **style) for style in styles])
    return figure


def _require(trials: Sequence[TrialValues]) -> None:
    if not trials:
        raise ValueError("trials are none; allowed: one or more; wait for a complete trial")


def _heights(values: "np.ndarray[Any, np.dtype[np.float64]]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.full(len(values), 0.5)


def _heights_of(trials: Sequence[TrialValues], name: str, logarithmic: bool) -> "np.ndarray[Any, np.dtype[np.float64]]":
    values = [trial.settings[name] for trial in trials]
    if _are_numbers(values):
        return _heights(np.array([math.log(v) if logarithmic and v > 0 else v for v in values], dtype=np.float64))
    levels = _sorted_levels(values)
    return _heights(np.array([levels.index(value) for value in values], dtype=np.float64))


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _sorted_levels(values: Sequence[Any]) -> list[Any]:
    return sorted(values) if _are_numbers(values) else sorted(values, key=str)


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _scale(axes: "Axes", position: int, low: str, high: str) -> None:
    axes.plot([position, position], [0, 1], color=GREY, linewidth=0.8)
    axes.text(position, -0.04, low, ha="center", va="top")
    axes.text(position, 1.04, high, ha="center", va="bottom")


def _broken(name: str, characters: int) -> str:
    """Return a dotted name with line breaks before parts that would exceed the width."""
    lines = [""]
    for part in name.replace(".", ".\0").replace("_", "_\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > characters:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)
