"""Test images with the truth, the prediction, and where they agree and differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from results.figures.drawing import CHARACTER, legend_below, new_figure
from results.figures.style import DESIGN_FONT, canvas_width, current, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRUTH: Final = "#56B4E9"
PREDICTION: Final = "#E69F00"
"""Colours of the outlines, visible on dark and on bright tissue; also of pixels that only one of the two has."""
AGREEMENT: Final = "#009E73"
SHADE: Final = 0.45
"""Opacity of the shading."""
MAX_CLASSES: Final = 4
"""Maximum number of classes that are drawn."""
BESIDE, LEAST, GAP = 2.1, 1.3, 0.1
"""Width of an image beside others of its classes, the least one, and half of the gap; in inches at `DESIGN_FONT`."""
MaskArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class OutlinedCase:
    """One image: pixels (H, W) or (H, W, 3) 8-bit, masks of truth and prediction (K, H, W)."""

    title: str
    pixels: NDArray[np.uint8]
    truth: MaskArray
    predicted: MaskArray


@styled
def outline_cases(cases: Sequence[OutlinedCase], classes: Sequence[str]) -> "Figure":
    """Draw the images, and each of the classes with most pixels on them.

    Images are beside each other with their classes below, or below each other with their classes beside them where the
    width allows and the figure is lower so. Truth is outlined solid, the prediction dashed; true positive, false
    positive and false negative pixels are shaded. Pixels are drawn as they are, without interpolation.

    Raises ValueError without cases.
    """
    if not cases:
        raise ValueError("cases are none; allowed: one or more; choose test images")
    shown = shown_classes(cases, classes)
    panels = len(shown) + 1
    beside = 0.4 + BESIDE * panels
    is_beside = panels > len(cases) and canvas_width(beside) >= 0.4 + LEAST * panels
    natural = beside if is_beside else 0.4 + 2.0 * len(cases)
    columns, rows = (panels, len(cases)) if is_beside else (len(cases), panels)
    width = (canvas_width(natural) - 0.4) / columns - 2 * GAP
    height = width * max(case.pixels.shape[0] / case.pixels.shape[1] for case in cases)
    lines = 1 if is_beside else max(case.title.count("\n") + 1 for case in cases)
    figure = new_figure(natural, rows * (height + 0.06) + 0.16 * lines + 0.75)
    # Room for the names of rows, which the layout underestimates where images keep their aspect.
    figure.set_layout_engine("constrained", w_pad=GAP * current().scale)
    grid = figure.subplots(rows, columns, squeeze=False)
    for case, axes_of_case in zip(cases, grid if is_beside else grid.T, strict=True):
        for axes in axes_of_case:
            _image(axes, case.pixels)
        for axes, index in zip(axes_of_case[1:], shown, strict=True):
            _shade(axes, case.truth[index], case.predicted[index])
            _outline(axes, case.truth[index], TRUTH, "solid")
            _outline(axes, case.predicted[index], PREDICTION, "dashed")
    names = ["image", *(classes[index] for index in shown)]
    titles = [case.title for case in cases]
    characters = max(8, int(height * 72 / DESIGN_FONT / CHARACTER))
    for axes, title in zip(grid[0], names if is_beside else titles, strict=True):
        axes.set_title(title, fontweight="normal")
    for axes, name in zip(grid[:, 0], titles if is_beside else names, strict=True):
        axes.set_ylabel("\n".join(line for part in name.split("\n") for line in wrap(part, characters)))
    _legend(figure)
    return figure


def _image(axes: "Axes", pixels: NDArray[np.uint8]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
    rows, columns = pixels.shape[:2]
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    axes.autoscale(enable=False)
    axes.spines[:].set_visible(False)


def shown_classes(cases: Sequence[OutlinedCase], classes: Sequence[str]) -> list[int]:
    """Return the indices of the classes that are drawn, in order: those with most true or predicted pixels."""
    pixels = [sum(int((case.truth[k] | case.predicted[k]).sum()) for case in cases) for k in range(len(classes))]
    return sorted(sorted(range(len(classes)), key=lambda k: -pixels[k])[:MAX_CLASSES])


def _shade(axes: "Axes", truth: MaskArray, predicted: MaskArray) -> None:
    """Shade true positive, false positive and false negative pixels, without smoothing."""
    from matplotlib.colors import to_rgba

    shading = np.zeros((*truth.shape, 4))
    for mask, colour in ((truth & predicted, AGREEMENT), (predicted & ~truth, PREDICTION), (truth & ~predicted, TRUTH)):
        shading[mask] = to_rgba(colour, SHADE)
    axes.imshow(shading, interpolation="none")


def _outline(axes: "Axes", mask: MaskArray, colour: str, style: str) -> None:
    if mask.any():
        # Padding closes the outlines of regions that touch the image's edge.
        padded = np.pad(mask.astype(np.float32), 1)
        rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
        width = 0.8 * current().line
        axes.contour(columns, rows, padded, levels=[0.5], colors=[colour], linestyles=[style], linewidths=width)


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    legend_below(figure, [
        Line2D([], [], color=TRUTH, label="Ground truth"),
        Line2D([], [], color=PREDICTION, linestyle="dashed", label="Prediction"),
        Patch(facecolor=AGREEMENT, alpha=SHADE, label="True positive"),
        Patch(facecolor=PREDICTION, alpha=SHADE, label="False positive"),
        Patch(facecolor=TRUTH, alpha=SHADE, label="False negative"),
    ])  # fmt: skip
