"""What each arm reaches in each class."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from results.figures.drawing import COLOURS, GREY, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Interval(NamedTuple):
    """A mean and its 95 % interval, None where there is none."""

    mean: float
    low: float | None
    high: float | None


def class_bars(
    arms: Mapping[str, Mapping[str, Interval]], *, label: str, places: Mapping[str, int] | None = None
) -> "Figure":
    """Draw a group of bars a class and a bar an arm, from `arms[arm][class]`; at most seven arms.

    `places` gives an arm another colour of the row than its own place.

    Raises ValueError for none and for more.
    """
    if not 0 < len(arms) <= len(COLOURS):
        raise ValueError(f"arms are {len(arms)}; allowed: 1 to {len(COLOURS)}; choose fewer")
    classes = list(dict.fromkeys(name for values in arms.values() for name in values))
    thick = 0.8 / len(arms)
    figure = new_figure(7.0, 1.1 + len(classes) * max(0.42, 0.22 * len(arms)))
    axes = figure.subplots()
    for place, (arm, values) in enumerate(arms.items()):
        there = [(row, values[name]) for row, name in enumerate(classes) if name in values]
        rows = [row + (place - (len(arms) - 1) / 2) * thick for row, _ in there]
        axes.barh(
            rows,
            [value.mean for _, value in there],
            thick * 0.9,
            color=COLOURS[(places or {}).get(arm, place) % len(COLOURS)],
            label=arm,
        )
        # A dark line on a pale edge is seen on every bar's colour and beside it.
        for width, colour in ((3.0, "white"), (1.2, "#222222")):
            axes.hlines(rows, *_ends(there), colors=colour, linewidth=width)
    axes.set_yticks(range(len(classes)), classes)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    tidy(axes, grid="x")
    axes.tick_params(axis="y", length=0, labelcolor="black", color=GREY)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def _ends(there: list[tuple[int, Interval]]) -> tuple[list[float], list[float]]:
    lows = [value.mean if value.low is None else value.low for _, value in there]
    return lows, [value.mean if value.high is None else value.high for _, value in there]
