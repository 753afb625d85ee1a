"""Colours, axes and file formats of all figures."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinguishable for colour-blind readers (Okabe and Ito 2008); without their yellow, too faint on white."""
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")
GREY = "#555555"

# Class names may be in any script; missing glyphs are drawn as boxes.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, size in inches, with constrained layout and without parsing of math in text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["text.parse_math"] = False
    return Figure(figsize=(width, height), layout="constrained")


def is_intact_png(path: Path) -> bool:
    """Return whether a file is a complete PNG with valid checksums."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
        return False
    return True


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as png, svg or pdf, by the suffix. Raises ValueError for another one."""
    if path.suffix not in FORMATS:
        raise ValueError(f"path ends in {path.suffix!r}; allowed: {', '.join(FORMATS)}; rename {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def svg(figure: "Figure") -> str:
    """Return a figure as svg text; equal figures give equal text."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "study"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def tidy(axes: "Axes", *, grid: str = "y") -> None:
    """Draw a light grid, and remove the upper and right spines."""
    axes.grid(axis="both" if grid == "both" else "x" if grid == "x" else "y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def panels(figure: "Figure", number: int, *, columns: int, share: bool = True) -> "Sequence[Axes]":
    """Return `number` axes in rows of `columns`."""
    rows = -(-number // columns)
    grid = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    for axes in grid[number:]:
        axes.remove()
    for index, axes in enumerate(grid[:number]):
        axes.tick_params(labelbottom=not share or index + columns >= number)
    return grid[:number]
