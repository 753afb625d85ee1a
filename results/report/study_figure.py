"""A figure of a study with its texts: shown on the page, or written to a file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from results import figures
from results.report.page import FigureBlock, Text, data_uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 6.5
"""Width in inches above which a figure has a row of the page to itself."""


@dataclass(frozen=True, kw_only=True)
class StudyFigure:
    """A figure of a study: its name, which is also that of its file, a caption and an alternative text."""

    name: str
    figure: "Figure"
    alt: str
    caption: str

    def block(self) -> FigureBlock:
        """Return the figure for the page."""
        is_wide = self.figure.get_figwidth() > WIDE
        return FigureBlock(data=data_uri(figures.svg(self.figure)), alt=self.alt, caption=self.caption, wide=is_wide)


Drawn = StudyFigure | Text
"""A figure, or why there is none."""
