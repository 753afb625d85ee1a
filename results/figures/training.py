"""Training curves: losses and validation scores over epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.figures.drawing import legend_below, new_figure, tidy
from results.figures.style import COLOURS, canvas_width, columns_within, current, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EpochValues = Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class History:
    """One training run: epoch and value of the losses and of the score that selects checkpoints; empty without one."""

    loss: EpochValues
    validation_loss: EpochValues
    score: EpochValues


@styled
def training_curves(stages: Mapping[str, Sequence[History]], scores: Mapping[str, str]) -> "Figure":
    """Draw a column per stage, losses above and validation score below, with a thin line per run.

    Stages that do not fit beside each other continue in further rows.

    `scores` are the names of the validation scores, "" for a stage without validation.

    Raises ValueError without stages.
    """
    if not stages:
        raise ValueError("stages are none; allowed: one or more; choose stages that are finished")
    natural = max(4.4, 0.6 + 2.7 * len(stages))
    columns = columns_within(canvas_width(natural), len(stages), least=2.1)
    rows = -(-len(stages) // columns)
    figure = new_figure(natural, 0.4 + 3.8 * rows)
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat[:]:
        axes.set_visible(False)
    for index, (stage, histories) in enumerate(stages.items()):
        row, column = divmod(index, columns)
        _stage(grid[2 * row][column], grid[2 * row + 1][column], histories, scores[stage])
        grid[2 * row][column].set_title(stage)
    _legend(figure)
    return figure


def _stage(above: "Axes", below: "Axes", histories: Sequence[History], score: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for history in histories:
        _line(above, history.loss, COLOURS[0], "-")
        _line(above, history.validation_loss, COLOURS[1], "--")
        _line(below, history.score, COLOURS[2], "-")
    above.set_ylabel("Loss")
    above.set_ylim(bottom=0 if all(y >= 0 for h in histories for _, y in (*h.loss, *h.validation_loss)) else None)
    _name(below, score)
    below.set_xlabel("Epoch")
    for axes in (above, below):
        axes.set_visible(True)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        tidy(axes)
    if len({epoch for history in histories for epoch, _ in (*history.loss, *history.score)}) == 1:
        above.set_xlim(0, 2)
    below.set_xlim(above.get_xlim())
    above.tick_params(labelbottom=False)


def _name(axes: "Axes", score: str) -> None:
    if score:
        axes.set_ylabel(f"Validation {score}")
    else:
        axes.text(0.5, 0.5, "no validation score", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])


def _line(axes: "Axes", points: EpochValues, colour: str, style: str) -> None:
    if points:
        marker, (x, y) = "o" if len(points) == 1 else "", zip(*points, strict=True)
        width: float = 0.7 * current().line
        axes.plot(x, y, color=colour, linestyle=style, linewidth=width, alpha=0.6, marker=marker)


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    entries: tuple[tuple[str, str, Any], ...] = (
        ("Training loss", COLOURS[0], "-"),
        ("Validation loss", COLOURS[1], "--"),
        ("Validation score", COLOURS[2], "-"),
    )
    legend_below(figure, [Line2D([], [], label=label, color=colour, linestyle=line) for label, colour, line in entries])
