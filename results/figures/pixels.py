"""Figures of stored pixel counts: reliability diagram, ROC curves, confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from results.figures.drawing import COLOURS, GREY, LINES, MARKERS, new_figure, panels, tidy
from results.metrics.formulas import Confidence, FloatArray, ece, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
Histograms = tuple[FloatArray, FloatArray]
"""Pixels of a class and of all other pixels by predicted score, each (bins,)."""


def reliability(arms: Mapping[str, Confidence], *, colour_indices: Mapping[str, int] | None = None) -> "Figure":
    """Draw accuracy over confidence by arm, and the number of pixels per bin below.

    On the diagonal the network is calibrated. Bins have shape (1, B), as returned by `Confidence.summed`.
    """
    from matplotlib.ticker import NullFormatter

    figure = new_figure(5.4, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="Perfect calibration")
    for position, (arm, bins) in enumerate(arms.items()):
        index = (colour_indices or {}).get(arm, position)
        is_filled = bins.count[0] > 0
        confidence = ratio(bins.total[0], bins.count[0])[is_filled]
        accuracy = ratio(bins.correct[0], bins.count[0])[is_filled]
        style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)], "markersize": 4.5}
        above.plot(confidence, accuracy, label=f"{arm} (ECE {float(ece(bins)[0]):.3f})", **style)
        below.plot(confidence, bins.count[0][is_filled], **style)
    lowest = min((float(np.min(line.get_xydata())) for line in above.lines[1:]), default=0.0)
    above.set(xlim=(max(0.0, lowest - 0.05), 1.02), ylim=(max(0.0, lowest - 0.05), 1.02))
    above.set_ylabel("Observed accuracy")
    figure.legend(loc="outside upper left", frameon=False, fontsize="small")
    below.set_yscale("log")
    below.yaxis.set_major_formatter(lambda value, _: _power_of_ten(value))
    below.yaxis.set_minor_formatter(NullFormatter())
    below.set(xlabel="Confidence", ylabel="Pixels")
    for axes in (above, below):
        tidy(axes, grid="both")
    return figure


def _power_of_ten(value: float) -> str:
    """Format a tick of a logarithmic axis; matplotlib's own format needs math text, which figures do not parse."""
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


def roc(
    classes: Mapping[str, Mapping[str, Histograms]], *, colour_indices: Mapping[str, int] | None = None
) -> "Figure":
    """Draw ROC curves over pixels, with a panel per class and a line per arm.

    Every edge between the histograms' bins is a point. An arm without positive or without negative pixels is omitted.
    """
    columns = min(3, len(classes))
    figure = new_figure(2.2 + 3.0 * columns, 0.7 + 3.0 * -(-len(classes) // columns))
    arm_names = dict.fromkeys(arm for arms in classes.values() for arm in arms)
    index_of_arm = {arm: (colour_indices or {}).get(arm, position) for position, arm in enumerate(arm_names)}
    for axes, (name, arms) in zip(panels(figure, len(classes), columns=columns), classes.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for arm, (positives, negatives) in arms.items():
            if positives.sum() and negatives.sum():
                index = index_of_arm[arm]
                axes.plot(_share_above(negatives), _share_above(positives), linewidth=1.6, **_line(index))
        _areas(axes, arms, index_of_arm)
        axes.set_title(name, fontsize="medium")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        tidy(axes, grid="both")
    figure.supxlabel("False positive rate", fontsize="medium")
    figure.supylabel("Sensitivity", fontsize="medium")
    _legend(figure, index_of_arm)
    return figure


def _areas(axes: "Axes", arms: Mapping[str, Histograms], index_of_arm: Mapping[str, int]) -> None:
    for line, (arm, (positives, negatives)) in enumerate(reversed(list(arms.items()))):
        if positives.sum() and negatives.sum():
            x, y = _share_above(negatives), _share_above(positives)
            area = float(-np.trapezoid(y, x))
            colour = COLOURS[index_of_arm[arm] % len(COLOURS)]
            axes.text(0.97, 0.04 + 0.085 * line, f"AUC {area:.3f}", ha="right", fontsize="small", color=colour)


def _line(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index % len(LINES)]}


def _share_above(pixels: FloatArray) -> FloatArray:
    above = np.append(np.flip(np.cumsum(np.flip(pixels))), 0.0)
    return np.asarray(above / above[0], dtype=np.float64)


def _legend(figure: "Figure", arms: Mapping[str, int]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=arm, **_line(index)) for arm, index in arms.items()]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")


def confusion(counts: NDArray[np.int64], names: Sequence[str]) -> "Figure":
    """Draw a confusion matrix in percent of the true class; counts (C, C) are truth x predicted.

    The row of a class that does not occur in the truth is empty. Raises ValueError unless there are C names.
    """
    if counts.shape != (len(names), len(names)):
        raise ValueError(f"counts are {counts.shape}; allowed: {len(names)} x {len(names)}; give a name a row")
    shares = ratio(counts.astype(np.float64), counts.sum(axis=1, keepdims=True).astype(np.float64))
    side = 1.6 + 0.62 * len(names)
    margin = 0.09 * max(map(len, names))
    figure = new_figure(side + 1.6 + margin, side + 0.2 + margin / 2)
    axes = figure.subplots()
    image = axes.imshow(shares * 100, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Predicted class", ylabel="True class")
    axes.tick_params(length=0)
    for (row, column), share in np.ndenumerate(shares):
        if not math.isnan(share):
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize="small")
    figure.colorbar(image, label="Pixels of the true class (%)", shrink=0.8)
    return figure
