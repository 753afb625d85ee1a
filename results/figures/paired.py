"""Differences to the baseline, one dot per pair of runs with the same fold and seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.figures.drawing import legend_below, new_figure, tidy
from results.figures.style import COLOURS, MARKERS, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """One comparison: its label, the difference and seed of each pair, and the adjusted p or None."""

    label: str
    differences: Sequence[float]
    seeds: Sequence[int]
    p: float | None


@styled
def paired_differences(comparisons: Sequence[Pairs], *, label: str) -> "Figure":
    """Draw a row per comparison: dots by seed, their mean as a bar, the adjusted p at the right.

    Raises ValueError without comparisons.
    """
    if not comparisons:
        raise ValueError("comparisons are none; allowed: one or more; name a baseline in the study file")
    seeds = sorted({seed for pairs in comparisons for seed in pairs.seeds})
    figure = new_figure(6.5, 1.2 + 0.42 * len(comparisons))
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for row, pairs in enumerate(comparisons):
        for difference, seed in zip(pairs.differences, pairs.seeds, strict=True):
            index = seeds.index(seed)
            shift = (index - (len(seeds) - 1) / 2) * min(0.12, 0.5 / len(seeds))
            axes.plot(difference, row + shift, **_dot(index))
        mean = sum(pairs.differences) / len(pairs.differences)
        axes.plot([mean, mean], [row - 0.36, row + 0.36], color=COLOURS[1], linewidth=2.4, solid_capstyle="butt")
        p_text = "" if pairs.p is None else f"{pairs.p:.2g}" if pairs.p >= 0.001 else "< 0.001"
        axes.text(1.01, row, p_text, transform=axes.get_yaxis_transform(), va="center")
    if any(pairs.p is not None for pairs in comparisons):
        axes.text(1.01, 1.0, "Adjusted p", transform=axes.transAxes, va="bottom", fontweight="bold")
    axes.set_yticks(range(len(comparisons)), [pairs.label for pairs in comparisons])
    axes.set_ylim(len(comparisons) - 0.4, -0.6)
    axes.set_xlabel(label)
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    _legend(figure, seeds)
    return figure


def _dot(index: int) -> dict[str, Any]:
    return {
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": "",
        "color": COLOURS[0],
        "markerfacecolor": "white",
        "alpha": 0.9,
    }


def _legend(figure: "Figure", seeds: Sequence[int]) -> None:
    from matplotlib.lines import Line2D

    shown = list(enumerate(seeds))[: len(MARKERS)]
    handles = [Line2D([], [], label=f"Seed {seed}", **_dot(index)) for index, seed in shown]
    handles.append(Line2D([], [], color=COLOURS[1], linewidth=2.4, label="Mean"))
    legend_below(figure, handles)
