"""One style of all figures: sizes, colours, lines and markers, applied while a figure is drawn or written."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Distinguishable for colour-blind readers (Okabe and Ito 2008); without their yellow, too faint on white."""
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++")
GREY = "#555555"
DASHED: Final = (0, (4, 3))
"""Line of what is extrapolated."""
DESIGN_FONT: Final = 9.0
"""Font size in points for which the functions of this package state sizes in inches."""
MM_PER_INCH: Final = 25.4

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class FigureStyle:
    """Sizes of figures.

    Args:
        font: Size of all text, in points.
        line: Width of lines, in points.
        width: Width of figures in millimetres; None for the width that each figure needs.
    """

    font: float
    line: float
    width: float | None = None

    @property
    def scale(self) -> float:
        """Return the scale of lengths that are stated for `DESIGN_FONT`."""
        return self.font / DESIGN_FONT

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of matplotlib that differ from its defaults."""
        sizes = ("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
        scale = self.line / 1.5
        return dict.fromkeys((*sizes, "font.size", "figure.titlesize", "figure.labelsize"), self.font) | {
            "lines.linewidth": self.line,
            "lines.markersize": 4.5 * self.scale,
            "axes.linewidth": 0.7 * scale,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "grid.linewidth": 0.6 * scale,
            "xtick.major.width": 0.7 * scale,
            "ytick.major.width": 0.7 * scale,
            "hatch.linewidth": 0.6 * scale,
            "legend.frameon": False,
            "text.parse_math": False,  # names may contain dollar signs
            "pdf.fonttype": 42,  # TrueType: journals refuse Type 3, and programs can edit it
            "svg.fonttype": "path",  # the same on every machine, whatever fonts it has
            "svg.hashsalt": "study",  # equal figures are equal files
        }


REPORT: Final = FigureStyle(font=9.0, line=1.5)
"""The report on a page."""
PAPER: Final = FigureStyle(font=7.0, line=1.0, width=88.0)
"""A column of a journal."""
SLIDES: Final = FigureStyle(font=16.0, line=2.6, width=300.0)
"""A slide in the format 16:9."""
STYLES: Final = {"paper": PAPER, "slides": SLIDES, "report": REPORT}

_current: ContextVar[FigureStyle] = ContextVar("figure_style", default=REPORT)


def current() -> FigureStyle:
    """Return the style in use."""
    return _current.get()


@contextmanager
def figure_style(style: FigureStyle) -> Iterator[None]:
    """Use a style for all figures that are drawn and written within the context."""
    token = _current.set(style)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def applied() -> Iterator[None]:
    """Set the parameters of matplotlib to its defaults and those of the style in use, and restore them at the end."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        parameters: Any = current().parameters()  # the type of their names is a list of literals
        mpl.rcParams.update(parameters)
        yield


def styled(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that draws a figure in the style in use."""

    @wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with applied():
            return draw(*args, **kwargs)

    return drawn


def canvas_width(natural: float) -> float:
    """Return the width of a figure in inches at `DESIGN_FONT`: that of the style, or else `natural`."""
    style = current()
    return natural if style.width is None else style.width / MM_PER_INCH / style.scale


def columns_within(width: float, number: int, *, least: float) -> int:
    """Return how many of `number` panels of at least `least` inches fit beside each other."""
    return max(1, min(number, int(width / least)))


def line_style(index: int) -> dict[str, Any]:
    """Return colour and line of a series without points."""
    return {"color": colour(index), "linestyle": LINES[index % len(LINES)]}


def point_style(index: int) -> dict[str, Any]:
    """Return colour and marker of a series of few points; hollow from the eighth series on."""
    hollow = {"markerfacecolor": "white"} if index >= len(COLOURS) else {}
    return {"color": colour(index), "marker": MARKERS[index % len(MARKERS)], **hollow}


def colour(index: int) -> str:
    """Return the colour of a series."""
    return COLOURS[index % len(COLOURS)]
