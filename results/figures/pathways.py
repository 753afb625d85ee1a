"""The pathways as one graph: what trains after what, what pathways share, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from results.figures.drawing import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, GAP, MARGIN, LINE = 2.45, 0.7, 0.12, 0.15
"""Of a box, between boxes, around the text in it, and of a line of it; in inches."""
CHARACTERS, TITLE = 36, 25
"""That fit into a line of a box and of its title."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Stages of the same place in the pathways; `parent` is the place in the list of the group it starts from.

    `link` says what is carried, `lines` what the box tells; `ends` are the pathways whose target this is and
    `shared` how many pathways run through it.
    """

    title: str
    lines: Sequence[str]
    parent: int | None
    link: str
    ends: Sequence[str]
    shared: int


def pathway_graph(groups: Sequence[Group]) -> "Figure":
    """Draw groups as boxes from left to right, pathways named where they end. Parents come first in the list.

    Raises ValueError for none.
    """
    from matplotlib.figure import Figure

    if not groups:
        raise ValueError("groups are none; allowed: one or more; plan the study first")
    columns, rows = _columns(groups), _rows(groups)
    texts = [_wrapped(group) for group in groups]
    tall = 2 * MARGIN + 0.06 + LINE * max(len(title) + len(lines) for title, lines in texts)
    longest = max(len(_ends(group)) for group in groups)
    width = max(columns) * (WIDTH + GAP) + WIDTH + 0.3 + 0.09 * longest
    height = (max(rows) + 1) * (tall + 0.2)
    figure = Figure(figsize=(width, height))  # one unit is one inch
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-0.1, width - 0.1), ylim=(height - tall / 2 - 0.1, -tall / 2 - 0.1))
    axes.set_axis_off()
    places = [(column * (WIDTH + GAP), row * (tall + 0.2)) for column, row in zip(columns, rows, strict=True)]
    for group, text, (x, y) in zip(groups, texts, places, strict=True):
        if group.parent is not None:
            start = places[group.parent]
            axes.annotate("", (x, y), (start[0] + WIDTH, start[1]), arrowprops={"arrowstyle": "-|>", "color": GREY})
        _box(axes, group, text, (x, y - tall / 2), tall)
    return figure


def _wrapped(group: Group) -> tuple[list[str], list[str]]:
    told = [f"takes over: {group.link}"] if group.link else []
    return wrap(group.title, TITLE), [part for line in (*told, *group.lines) for part in wrap(line, CHARACTERS)]


def _columns(groups: Sequence[Group]) -> list[int]:
    columns: list[int] = []
    for group in groups:
        columns.append(0 if group.parent is None else columns[group.parent] + 1)
    return columns


def _rows(groups: Sequence[Group]) -> list[float]:
    """Return the row of each group: leaves one below the other in the order of the tree, others amid their children."""
    children: dict[int | None, list[int]] = {}
    for place, group in enumerate(groups):
        children.setdefault(group.parent, []).append(place)
    rows = [0.0] * len(groups)
    free = 0

    def settle(place: int) -> None:
        nonlocal free
        below = children.get(place, [])
        for child in below:
            settle(child)
        if below:
            rows[place] = (rows[below[0]] + rows[below[-1]]) / 2
        else:
            rows[place] = free
            free += 1

    for root in children[None]:
        settle(root)
    return rows


def _ends(group: Group) -> str:
    return ", ".join(group.ends)


def _box(
    axes: "Axes", group: Group, text: tuple[list[str], list[str]], corner: tuple[float, float], tall: float
) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), common, (title, lines) = corner, group.shared > 1, text
    axes.add_patch(
        FancyBboxPatch(
            (x + 0.06, y + 0.06), WIDTH - 0.12, tall - 0.12, boxstyle="round,pad=0.06,rounding_size=0.08",
            facecolor="#fff3e9" if common else "#eef5fa", edgecolor=COLOURS[1] if common else COLOURS[0],
            linewidth=2.0 if common else 1.2,
        )
    )  # fmt: skip
    for place, line in enumerate(title):
        axes.text(x + MARGIN, y + MARGIN + place * LINE, line, va="top", fontsize=9, fontweight="bold")
    for place, line in enumerate(lines, start=len(title)):
        axes.text(x + MARGIN, y + MARGIN + 0.06 + place * LINE, line, va="top", fontsize=7.5)
    if group.ends:
        axes.text(x + WIDTH + 0.1, y + tall / 2, _ends(group), va="center", fontsize=9, fontstyle="italic")
