"""What all figures share: colours, axes, and how one becomes a file or a piece of a page."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind readers (Okabe and Ito 2008); their yellow is too faint on white."""
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")
GREY = "#555555"

# A class may be named in any script; what the font lacks is drawn as a box.
warnings.filterwarnings("ignore", message="Glyph .* missing from font")


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches that keeps its labels apart by itself; names are drawn as they are."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["text.parse_math"] = False
    return Figure(figsize=(width, height), layout="constrained")


def is_intact_png(path: Path) -> bool:
    """Return whether a file is a complete PNG whose checksums hold."""
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
    """Take away what is not data."""
    axes.grid(axis="both" if grid == "both" else "x" if grid == "x" else "y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def panels(figure: "Figure", number: int, *, across: int, share: bool = True) -> "Sequence[Axes]":
    """Return so many axes in rows of `across`."""
    down = -(-number // across)
    grid = list(figure.subplots(down, across, sharex=share, sharey=share, squeeze=False).flat)
    for axes in grid[number:]:
        axes.remove()
    for index, axes in enumerate(grid[:number]):
        axes.tick_params(labelbottom=not share or index + across >= number)
    return grid[:number]
