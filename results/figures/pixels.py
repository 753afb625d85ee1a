"""Figures of stored pixel counts: reliability diagram, ROC curves, confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from results.figures.bars import Interval
from results.figures.drawing import label_panels, legend_below, new_figure, panels, tidy
from results.figures.style import GREY, canvas_width, columns_within, current, line_style, point_style, styled
from results.metrics.formulas import Confidence, FloatArray, ece, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
Histograms = tuple[FloatArray, FloatArray]
"""Pixels of a class and of all other pixels by predicted score, each (bins,)."""


@styled
def reliability(arms: Mapping[str, Confidence], *, colour_indices: Mapping[str, int] | None = None) -> "Figure":
    """Draw accuracy over confidence by arm, and the number of pixels per bin below.

    On the diagonal the network is calibrated. Bins have shape (1, B), as returned by `Confidence.summed`.
    """
    from matplotlib.ticker import NullFormatter

    figure = new_figure(4.4, 5.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], **_diagonal(), label="Perfect calibration")
    for position, (arm, bins) in enumerate(arms.items()):
        index = (colour_indices or {}).get(arm, position)
        is_filled = bins.count[0] > 0
        confidence = ratio(bins.total[0], bins.count[0])[is_filled]
        accuracy = ratio(bins.correct[0], bins.count[0])[is_filled]
        style = {**line_style(index), **point_style(index)}
        above.plot(confidence, accuracy, label=f"{arm} (ECE {float(ece(bins)[0]):.3f})", **style)
        below.plot(confidence, bins.count[0][is_filled], **style)
    lowest = min((float(np.min(line.get_xydata())) for line in above.lines[1:]), default=0.0)
    above.set(xlim=(max(0.0, lowest - 0.05), 1.02), ylim=(max(0.0, lowest - 0.05), 1.02))
    above.set_ylabel("Accuracy")
    legend_below(figure, above.get_lines())
    below.set_yscale("log")
    below.yaxis.set_major_formatter(lambda value, _: _power_of_ten(value))
    below.yaxis.set_minor_formatter(NullFormatter())
    below.set(xlabel="Confidence (predicted probability)", ylabel="Pixels")
    for axes in (above, below):
        tidy(axes, grid="both")
    return figure


def _power_of_ten(value: float) -> str:
    """Format a tick of a logarithmic axis; matplotlib's own format needs math text, which figures do not parse."""
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


@styled
def roc(
    classes: Mapping[str, Mapping[str, Histograms]],
    *,
    colour_indices: Mapping[str, int] | None = None,
    areas: Mapping[str, Mapping[str, Interval]] | None = None,
) -> "Figure":
    """Draw ROC curves over pixels, with a panel per class and a line per arm.

    Every edge between the histograms' bins is a point. An arm without positive or without negative pixels is omitted.

    Args:
        classes: Histograms by class, then by arm.
        colour_indices: Index of each arm's colour, by default its position.
        areas: Area under the curve by class and arm, with its interval; by default that of the drawn curve.
    """
    natural = 0.6 + 2.5 * min(3, len(classes))
    columns = columns_within(canvas_width(natural), min(3, len(classes)), least=2.1)
    side = (canvas_width(natural) - 0.6) / columns
    arm_names = list(dict.fromkeys(arm for arms in classes.values() for arm in arms))
    figure = new_figure(natural, 0.7 + (side + 0.1) * -(-len(classes) // columns))
    index_of_arm = {arm: (colour_indices or {}).get(arm, position) for position, arm in enumerate(arm_names)}
    for axes, (name, arms) in zip(panels(figure, len(classes), columns=columns), classes.items(), strict=True):
        axes.plot([0, 1], [0, 1], **_diagonal())
        for arm, (positives, negatives) in arms.items():
            if positives.sum() and negatives.sum():
                axes.plot(_share_above(negatives), _share_above(positives), **line_style(index_of_arm[arm]))
        _areas(axes, arms, index_of_arm, (areas or {}).get(name, {}), side)
        axes.set_title(name)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        tidy(axes, grid="both")
    label_panels(figure, "False positive rate", "True positive rate (sensitivity)")
    _legend(figure, index_of_arm)
    return figure


def _areas(
    axes: "Axes", arms: Mapping[str, Histograms], index_of_arm: Mapping[str, int], areas: Mapping[str, Interval],
    side: float,
) -> None:  # fmt: skip
    step = 1.3 * current().font / 72 / current().scale / (side - 0.4)
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5}
    for line, (arm, (positives, negatives)) in enumerate(reversed(list(arms.items()))):
        if positives.sum() and negatives.sum():
            x, y = _share_above(negatives), _share_above(positives)
            text = _area_text(areas.get(arm) or Interval(float(-np.trapezoid(y, x)), None, None))
            colour = line_style(index_of_arm[arm])["color"]
            axes.text(0.98, 0.04 + step * line, text, ha="right", color=colour, bbox=box)


def _area_text(area: Interval) -> str:
    if area.low is None or area.high is None:
        return f"AUC {area.mean:.3f}"
    return f"AUC {area.mean:.2f} ({area.low:.2f}\N{EN DASH}{area.high:.2f})"


def _share_above(pixels: FloatArray) -> FloatArray:
    above = np.append(np.flip(np.cumsum(np.flip(pixels))), 0.0)
    return np.asarray(above / above[0], dtype=np.float64)


def _legend(figure: "Figure", arms: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=arm, **line_style(index)) for arm, index in arms.items()]
    legend_below(figure, [*handles, Line2D([], [], label="Chance", **_diagonal())])


def _diagonal() -> dict[str, Any]:
    return {"color": GREY, "linewidth": 0.7 * current().line, "linestyle": ":"}


@styled
def confusion(counts: NDArray[np.int64], names: Sequence[str]) -> "Figure":
    """Draw a confusion matrix in percent of the true class; counts (C, C) are truth x predicted.

    The row of a class that does not occur in the truth is empty. Raises ValueError unless there are C names.
    """
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"counts are {counts.shape}; allowed: {len(names)} x {len(names)}; give a name a row")
    shares = ratio(counts.astype(np.float64), counts.sum(axis=1, keepdims=True).astype(np.float64))
    margin = 0.08 * max(map(len, names))
    natural = 1.8 + 0.6 * len(names) + margin
    side = canvas_width(natural) - 1.2 - margin
    figure = new_figure(natural, side + 0.5 + margin / 2)
    axes = figure.subplots()
    image = axes.imshow(shares * 100, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.tick_params(length=0)
    for (row, column), share in np.ndenumerate(shares):
        if not math.isnan(share):
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour)
    figure.colorbar(image, label="Share of the true class (%)", shrink=0.8)
    return figure
