"""Bar chart of a metric by class and arm."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from results.figures.drawing import legend_below, new_figure, tidy
from results.figures.style import COLOURS, GREY, HATCHES, colour, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Interval(NamedTuple):
    """A mean and its 95 % interval, None without one."""

    mean: float
    low: float | None
    high: float | None


@styled
def class_bars(
    arms: Mapping[str, Mapping[str, Interval]], *, label: str, colour_indices: Mapping[str, int] | None = None
) -> "Figure":
    """Draw a group of bars per class with one bar per arm.

    Args:
        arms: Values by arm, then by class; one to seven arms, else ValueError.
        label: Label of the axis of values.
        colour_indices: Index of each arm's colour, by default its position.
    """
    if not 0 < len(arms) <= len(COLOURS):
        raise ValueError(f"arms are {len(arms)}; allowed: 1 to {len(COLOURS)}; choose fewer")
    from matplotlib.patches import Patch

    classes = list(dict.fromkeys(name for values in arms.values() for name in values))
    thickness = 0.8 / len(arms)
    figure = new_figure(6.0, 1.1 + len(classes) * max(0.42, 0.2 * len(arms)))
    axes = figure.subplots()
    for index, (arm, values) in enumerate(arms.items()):
        values_by_row = [(row, values[name]) for row, name in enumerate(classes) if name in values]
        rows = [row + (index - (len(arms) - 1) / 2) * thickness for row, _ in values_by_row]
        look = _look((colour_indices or {}).get(arm, index))
        axes.barh(rows, [value.mean for _, value in values_by_row], thickness * 0.9, label=arm, **look)
        # A dark line with a white edge is visible on every bar's colour and beside it.
        for width, edge in ((3.0, "white"), (1.2, "#222222")):
            axes.hlines(rows, *_ends(values_by_row), colors=edge, linewidth=width)
    axes.set_yticks(range(len(classes)), classes)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelcolor="black", color=GREY)
    legend_below(figure, [Patch(label=arm, **_look((colour_indices or {}).get(arm, i))) for i, arm in enumerate(arms)])
    return figure


def _look(index: int) -> dict[str, Any]:
    """Return colour and hatch of a bar; hatches remain when a page is printed in grey."""
    return {"facecolor": colour(index), "hatch": HATCHES[index % len(HATCHES)], "edgecolor": "white", "linewidth": 0}


def _ends(values_by_row: list[tuple[int, Interval]]) -> tuple[list[float], list[float]]:
    lows = [value.mean if value.low is None else value.low for _, value in values_by_row]
    return lows, [value.mean if value.high is None else value.high for _, value in values_by_row]
