"""Learning curves: what each arm reaches with how many labelled images."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.schema import factor_columns
from results.tables import selected

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Record = Mapping[str, Any]
Label = tuple[str, ...]
Style = dict[str, Any]
PANEL = ("architecture", "backbone")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind readers (Okabe and Ito 2008); their yellow is too faint on white."""
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")


def learning_curve(
    comparisons: "pa.Table",
    *,
    metric: str = "mean_iou",
    path: Path,
    class_: str = "macro",
    aggregation: str = "dataset",
    split: str = "test",
) -> None:
    """Draw mean and 95 % interval over labelled images to `path` (png, svg or pdf by suffix).

    A panel per architecture and backbone, a colour per pathway, a line style and marker per other factor.
    Raises ValueError for another suffix and for what the table does not have.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"path ends in {path.suffix!r}; allowed: {', '.join(FORMATS)}; rename {path.name}")
    wanted = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records = [record for record in selected(comparisons.to_pylist(), wanted) if record["mean"] is not None]
    if not records:
        raise ValueError(f"{metric} is undefined in every cell; allowed: a metric with a mean; choose another")
    factors = factor_columns(comparisons.column_names)
    others = [name for name in factors if name not in PANEL and name != "pathway" and _varies(records, name)]
    figure = _figure(records, others)
    figure.supylabel(f"{metric} ({class_}, {aggregation}, {split})", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _figure(records: Sequence[Record], others: Sequence[str]) -> "Figure":
    from matplotlib.figure import Figure

    panels = _labels(records, PANEL)
    across = min(3, math.ceil(math.sqrt(len(panels))))
    down = math.ceil(len(panels) / across)
    styles = _styles(records, others)
    width, height = (3.3, 2.9) if len(panels) > 1 else (4.6, 3.6)
    figure = Figure(figsize=(2.4 + width * across, 0.6 + height * down), layout="constrained")
    grid = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        inside = [record for record in records if _label(record, PANEL) == panel]
        _draw(axes, inside, styles, others)
        axes.set_title(", ".join(panel), fontsize="medium")
    for axes in grid[len(panels) :]:
        axes.remove()
    _ticks(grid[: len(panels)], sorted({record["labelled_images"] for record in records}), across)
    figure.supxlabel("labelled images", fontsize="medium")
    figure.legend(handles=_handles(records, others), loc="outside right upper", frameon=False)
    return figure


def _draw(axes: "Axes", records: Sequence[Record], styles: Mapping[Label, Style], others: Sequence[str]) -> None:
    for place, (label, style) in enumerate(styles.items()):
        # One record a size: every baseline of a cell repeats its mean.
        arm = {r["labelled_images"]: r for r in records if _label(r, ("pathway", *others)) == label}
        shift = 2 ** (0.035 * (place - (len(styles) - 1) / 2))
        sizes = sorted(arm)
        means = [arm[size]["mean"] for size in sizes]
        bars = [[_half(arm[size], end) for size in sizes] for end in ("ci_low", "ci_high")]
        drawn = axes.errorbar([size * shift for size in sizes], means, bars, elinewidth=1.2, **style)
        for interval in drawn[2]:
            interval.set_alpha(0.55)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _half(record: Record, end: str) -> float:
    return 0.0 if record[end] is None else abs(record[end] - record["mean"])


def _ticks(panels: "Sequence[Axes]", sizes: Sequence[int], across: int) -> None:
    from matplotlib.ticker import NullLocator

    apart: list[int] = []
    for size in reversed(sizes):
        if not apart or apart[-1] >= 1.2 * size:
            apart.append(size)
    for index, axes in enumerate(panels):
        axes.set_xscale("log", base=2)
        axes.set_xticks(apart, [str(size) for size in apart])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelbottom=index + across >= len(panels))


def _styles(records: Sequence[Record], others: Sequence[str]) -> Mapping[Label, Style]:
    pathways, further = _labels(records, ["pathway"]), _labels(records, others)
    arms = _labels(records, ("pathway", *others))
    return {
        arm: {**_colour(pathways.index(arm[:1])), **_line(further.index(arm[1:]))}
        for arm in sorted(arms, key=lambda arm: (pathways.index(arm[:1]), further.index(arm[1:])))
    }


def _colour(index: int) -> Style:
    hollow = {"markerfacecolor": "white"} if index >= len(COLOURS) else {}
    return {"color": COLOURS[index % len(COLOURS)], **hollow}


def _line(index: int) -> Style:
    marker, line = MARKERS[index % len(MARKERS)], LINES[index % len(LINES)]
    return {"marker": marker, "linestyle": line, "markersize": 5, "linewidth": 1.6}


def _handles(records: Sequence[Record], others: Sequence[str]) -> "list[Line2D]":
    from matplotlib.lines import Line2D

    def entry(label: str, style: Style) -> Line2D:
        return Line2D([], [], label=label, **style)

    handles = [entry("pathway", {"linestyle": ""})]
    for index, label in enumerate(_labels(records, ["pathway"])):
        handles.append(entry(label[0], {**_line(0), "linestyle": "-", **_colour(index)}))
    if others:
        handles += [entry("", {"linestyle": ""}), entry(", ".join(others), {"linestyle": ""})]
        for index, label in enumerate(_labels(records, others)):
            handles.append(entry(", ".join(label), {**_line(index), "color": "#555555"}))
    return handles


def _labels(records: Sequence[Record], names: Sequence[str]) -> list[Label]:
    return list(dict.fromkeys(_label(record, names) for record in records))


def _label(record: Record, names: Sequence[str]) -> Label:
    return tuple(record[name] for name in names)


def _varies(records: Sequence[Record], name: str) -> bool:
    return len({record[name] for record in records}) > 1
