"""Graph of the pathways: order of stages, stages that pathways share, and their cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from results.figures.drawing import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, GAP, MARGIN, LINE = 2.45, 0.7, 0.12, 0.15
"""Width of a box, gap between boxes, margin around its text, and height of a line; in inches."""
CHARACTERS, TITLE = 36, 25
"""Characters per line of a box and of its title."""


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


def pathway_graph(groups: Sequence[Group]) -> "Figure":
    """Draw groups as boxes from left to right, with the names of pathways where they end.

    Parents come first in the list. Raises ValueError without groups.
    """
    from matplotlib.figure import Figure

    if not groups:
        raise ValueError("groups are none; allowed: one or more; plan the study first")
    columns, rows = _columns(groups), _rows(groups)
    texts = [_wrapped(group) for group in groups]
    box_height = 2 * MARGIN + 0.06 + LINE * max(len(title) + len(lines) for title, lines in texts)
    longest = max(len(_ends(group)) for group in groups)
    width = max(columns) * (WIDTH + GAP) + WIDTH + 0.3 + 0.09 * longest
    height = (max(rows) + 1) * (box_height + 0.2)
    figure = Figure(figsize=(width, height))  # one unit is one inch
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-0.1, width - 0.1), ylim=(height - box_height / 2 - 0.1, -box_height / 2 - 0.1))
    axes.set_axis_off()
    places = [(column * (WIDTH + GAP), row * (box_height + 0.2)) for column, row in zip(columns, rows, strict=True)]
    for group, text, (x, y) in zip(groups, texts, places, strict=True):
        if group.parent is not None:
            start = places[group.parent]
            axes.annotate("", (x, y), (start[0] + WIDTH, start[1]), arrowprops={"arrowstyle": "-|>", "color": GREY})
        _box(axes, group, text, (x, y - box_height / 2), box_height)
    return figure


def _wrapped(group: Group) -> tuple[list[str], list[str]]:
    link = [f"transfers: {group.link}"] if group.link else []
    return wrap(group.title, TITLE), [part for line in (*link, *group.lines) for part in wrap(line, CHARACTERS)]


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
    axes: "Axes", group: Group, text: tuple[list[str], list[str]], corner: tuple[float, float], box_height: float
) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), is_shared, (title, lines) = corner, group.shared > 1, text
    axes.add_patch(
        FancyBboxPatch(
            (x + 0.06, y + 0.06), WIDTH - 0.12, box_height - 0.12, boxstyle="round,pad=0.06,rounding_size=0.08",
            facecolor="#fff3e9" if is_shared else "#eef5fa", edgecolor=COLOURS[1] if is_shared else COLOURS[0],
            linewidth=2.0 if is_shared else 1.2,
        )
    )  # fmt: skip
    for index, line in enumerate(title):
        axes.text(x + MARGIN, y + MARGIN + index * LINE, line, va="top", fontsize=9, fontweight="bold")
    for index, line in enumerate(lines, start=len(title)):
        axes.text(x + MARGIN, y + MARGIN + 0.06 + index * LINE, line, va="top", fontsize=7.5)
    if group.ends:
        axes.text(x + WIDTH + 0.1, y + box_height / 2, _ends(group), va="center", fontsize=9, fontstyle="italic")
