"""Graph of the pathways: order of stages, stages that pathways share, and their cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from results.figures.drawing import figure_size
from results.figures.style import COLOURS, GREY, canvas_width, current, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, GAP, MARGIN, LINE = 2.5, 0.6, 0.12, 0.165
"""Width of a box, gap between boxes, margin around its text, and height of a line; in inches at `DESIGN_FONT`."""
INDENT = 0.3
"""Indentation of a box below its parent, where boxes do not fit beside each other."""
CHARACTER = 0.082
"""Width of a character."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Stages at the same position of the pathways.

    Args:
        lines: Text of the box.
        parent: Index of the group before it, None for none.
        link: What it has of the parent, such as the weights that are carried.
        ends: Pathways that end here.
        shared: Number of pathways that contain the group.
    """

    title: str
    lines: Sequence[str]
    parent: int | None
    link: str
    ends: Sequence[str]
    shared: int


@styled
def pathway_graph(groups: Sequence[Group]) -> "Figure":
    """Draw groups as boxes from left to right, with the names of pathways where they end.

    Where these do not fit into the width of the style, a box is below the one before it and indented.

    Parents come first in the list. Raises ValueError without groups.
    """
    from matplotlib.figure import Figure

    if not groups:
        raise ValueError("groups are none; allowed: one or more; plan the study first")
    columns, rows = _columns(groups), _rows(groups)
    longest = max(len(_ends(group)) for group in groups)
    natural = max(columns) * (WIDTH + GAP) + WIDTH + 0.3 + 1.1 * CHARACTER * longest
    width = canvas_width(natural)
    is_indented = natural > width
    if is_indented:
        rows = _depth_first(groups)
    box_width = width - INDENT * max(columns) - 0.3 - 1.1 * CHARACTER * longest if is_indented else WIDTH
    box_width = min(max(box_width, 1.2), WIDTH)
    texts = [_wrapped(group, box_width) for group in groups]
    box_height = 2 * MARGIN + 0.06 + LINE * max(len(title) + len(lines) for title, lines in texts)
    step = box_height + 0.2
    height = (max(rows) + 1) * step
    figure = Figure(figsize=figure_size(width, height))  # one unit is one inch at the font size of the design
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-0.1, width - 0.1), ylim=(height - box_height / 2 - 0.1, -box_height / 2 - 0.1))
    axes.set_axis_off()
    across = INDENT if is_indented else WIDTH + GAP
    places = [(column * across, row * step) for column, row in zip(columns, rows, strict=True)]
    for group, text, (x, y) in zip(groups, texts, places, strict=True):
        if group.parent is not None:
            _link(axes, places[group.parent], (x, y), box_height if is_indented else None)
        _box(axes, group, text, (x, y - box_height / 2), (box_width, box_height))
    return figure


def _link(axes: "Axes", start: tuple[float, float], end: tuple[float, float], box_height: float | None) -> None:
    """Draw an arrow from a box to the right, or from below it to an indented one if a height is given."""
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    origin = (start[0] + WIDTH, start[1])
    if box_height is not None:
        origin = (start[0] + INDENT / 2, start[1] + box_height / 2)
        arrow["connectionstyle"] = "angle,angleA=90,angleB=0,rad=0"
    axes.annotate("", end, origin, arrowprops=arrow)


def _depth_first(groups: Sequence[Group]) -> list[float]:
    """Return the rank of each group where children follow their parent."""
    paths: list[tuple[int, ...]] = []
    for index, group in enumerate(groups):
        paths.append((*(() if group.parent is None else paths[group.parent]), index))
    ranks = {path: float(rank) for rank, path in enumerate(sorted(paths))}
    return [ranks[path] for path in paths]


def _wrapped(group: Group, width: float) -> tuple[list[str], list[str]]:
    link = [f"transfers: {group.link}"] if group.link else []
    characters = int((width - 2 * MARGIN) / (0.9 * CHARACTER))
    return wrap(group.title, characters), [part for line in (*link, *group.lines) for part in wrap(line, characters)]


def _columns(groups: Sequence[Group]) -> list[int]:
    columns: list[int] = []
    for group in groups:
        columns.append(0 if group.parent is None else columns[group.parent] + 1)
    return columns


def _rows(groups: Sequence[Group]) -> list[float]:
    """Return the row of each group: leaves below each other in tree order, others centred on their children."""
    children: dict[int | None, list[int]] = {}
    for index, group in enumerate(groups):
        children.setdefault(group.parent, []).append(index)
    rows = [0.0] * len(groups)
    free = 0

    def settle(index: int) -> None:
        nonlocal free
        child_indices = children.get(index, [])
        for child in child_indices:
            settle(child)
        if child_indices:
            rows[index] = (rows[child_indices[0]] + rows[child_indices[-1]]) / 2
        else:
            rows[index] = free
            free += 1

    for root in children[None]:
        settle(root)
    return rows


def _ends(group: Group) -> str:
    return ", ".join(group.ends)


def _box(
    axes: "Axes", group: Group, text: tuple[list[str], list[str]], corner: tuple[float, float],
    size: tuple[float, float],
) -> None:  # fmt: skip
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height), is_shared, (title, lines) = corner, size, group.shared > 1, text
    axes.add_patch(
        FancyBboxPatch(
            (x + 0.06, y + 0.06), width - 0.12, height - 0.12, boxstyle="round,pad=0.06,rounding_size=0.08",
            facecolor="#fff3e9" if is_shared else "#eef5fa", edgecolor=COLOURS[1] if is_shared else COLOURS[0],
            linewidth=(1.3 if is_shared else 0.8) * current().line,
        )
    )  # fmt: skip
    for index, line in enumerate(title):
        axes.text(x + MARGIN, y + MARGIN + index * LINE, line, va="top", fontweight="bold")
    for index, line in enumerate(lines, start=len(title)):
        axes.text(x + MARGIN, y + MARGIN + 0.06 + index * LINE, line, va="top")
    if group.ends:
        axes.text(x + width + 0.1, y + height / 2, _ends(group), va="center", fontstyle="italic")
