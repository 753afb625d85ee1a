"""Test images with outlines of the truth and the prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from results.figures.drawing import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ON_GREY = (*COLOURS[1:2], COLOURS[5], COLOURS[3], COLOURS[4], COLOURS[2], "#F0E442")
"""Colours that are visible on dark and on bright tissue."""
MaskArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class OutlinedCase:
    """One image: pixels (H, W) or (H, W, 3) 8-bit, masks of truth and prediction (K, H, W)."""

    title: str
    pixels: NDArray[np.uint8]
    truth: MaskArray
    predicted: MaskArray


def outline_cases(cases: Sequence[OutlinedCase], classes: Sequence[str]) -> "Figure":
    """Draw a column per image: the image above, with outlines below (truth solid, prediction dashed).

    Raises ValueError without cases.
    """
    if not cases:
        raise ValueError("cases are none; allowed: one or more; choose test images")
    figure = new_figure(0.4 + 2.9 * len(cases), 6.7)
    grid = figure.subplots(2, len(cases), squeeze=False)
    for column, case in enumerate(cases):
        for axes in grid[:, column]:
            axes.imshow(case.pixels, cmap="gray", vmin=0, vmax=255)
            height, width = case.pixels.shape[:2]
            axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            axes.autoscale(enable=False)
            axes.set_axis_off()
        grid[0][column].set_title(case.title, fontsize="small")
        for index in range(len(classes)):
            colour = ON_GREY[index % len(ON_GREY)]
            _outline(grid[1][column], case.truth[index], colour, "solid")
            _outline(grid[1][column], case.predicted[index], colour, "dashed")
    _legend(figure, classes)
    return figure


def _outline(axes: "Axes", mask: MaskArray, colour: str, style: str) -> None:
    if mask.any():
        # Padding closes the outlines of regions that touch the image's edge.
        padded = np.pad(mask.astype(np.float32), 1)
        rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
        axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.6)


def _legend(figure: "Figure", classes: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=ON_GREY[index % len(ON_GREY)], linewidth=2.4, label=name)
        for index, name in enumerate(classes)
    ]
    handles.append(Line2D([], [], color="#333333", linestyle="solid", label="Ground truth"))
    handles.append(Line2D([], [], color="#333333", linestyle="dashed", label="Prediction"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize="small")
