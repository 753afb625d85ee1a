"""Training curves: losses and validation scores over epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.figures.drawing import COLOURS, new_figure, tidy

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


def training_curves(stages: Mapping[str, Sequence[History]], scores: Mapping[str, str]) -> "Figure":
    """Draw a column per stage, losses above and validation score below, with a thin line per run.

    `scores` are the names of the validation scores, "" for a stage without validation.

    Raises ValueError without stages.
    """
    if not stages:
        raise ValueError("stages are none; allowed: one or more; choose stages that are finished")
    figure = new_figure(1.2 + 3.0 * len(stages), 4.6)
    grid = figure.subplots(2, len(stages), squeeze=False, sharex="col")
    for column, (stage, histories) in enumerate(stages.items()):
        above, below = grid[0][column], grid[1][column]
        above.set_title(stage, fontsize="medium")
        for history in histories:
            _line(above, history.loss, COLOURS[0], "-")
            _line(above, history.validation_loss, COLOURS[1], "--")
            _line(below, history.score, COLOURS[2], "-")
        _name(below, scores[stage])
        above.set_ylim(bottom=0 if all(y >= 0 for h in histories for _, y in (*h.loss, *h.validation_loss)) else None)
        below.set_xlabel("Epoch")
        for axes in (above, below):
            tidy(axes)
    grid[0][0].set_ylabel("Loss")
    _legend(figure)
    return figure


def _name(axes: "Axes", score: str) -> None:
    if score:
        axes.set_ylabel(f"Validation {score}")
    else:
        axes.text(0.5, 0.5, "no validation score", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])


def _line(axes: "Axes", points: EpochValues, colour: str, style: str) -> None:
    if points:
        marker = "o" if len(points) == 1 else ""
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.0, alpha=0.6, marker=marker)


def _legend(figure: "Figure") -> None:
    from matplotlib.lines import Line2D

    entries = (
        ("Training loss", COLOURS[0], "-"),
        ("Validation loss", COLOURS[1], "--"),
        ("Validation score", COLOURS[2], "-"),
    )
    styles: list[dict[str, Any]] = [
        {"label": label, "color": colour, "linestyle": line} for label, colour, line in entries
    ]
    handles = [Line2D([], [], **style) for style in styles]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
