"""Learning curves: a metric over the number of labelled images, by arm."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from results.figures.drawing import label_panels, legend_below, new_figure, panels, save, tidy
from results.figures.style import (
    DASHED,
    GREY,
    LINES,
    MARKERS,
    canvas_width,
    columns_within,
    current,
    point_style,
    styled,
)
from results.metrics.agreement import Agreement
from results.schema import ComparisonRecord, factor_columns, factor_title, metric_title, unit_of
from results.tables.layout import filter_records, study_level

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Label = tuple[str, ...]
PlotStyle = dict[str, Any]
PANEL = ("architecture", "backbone")
VARIANTS = {"thresholded": ", at the class thresholds", "postprocessed": ", after post-processing"}
"""By the end of the name of a split."""
Axis = Literal["labelled_images", "annotation_hours"]
AXES: Mapping[Axis, str] = {"labelled_images": "Labelled training images", "annotation_hours": "Hours of annotation"}
"""Printed names of the horizontal axes."""
MAX_LABELS = 5
"""Maximum number of arms whose names are written beside their curves."""
AGGREGATIONS = {"dataset": "pooled over", "case": "mean over"}
"""Printed names of the values of the column `aggregation`."""


def learning_curve(
    comparisons: "pa.Table",
    *,
    metric: str = "mean_iou",
    path: Path,
    class_: str = "macro",
    aggregation: str = "dataset",
    split: str = "test",
    log: bool = False,
    agreements: Sequence[Agreement] = (),
    forecasts: Sequence[Mapping[str, Any]] = (),
    results: "pa.Table | None" = None,
) -> None:
    """Save the figure of `curves` to `path`, as png, svg or pdf by its suffix.

    Raises ValueError for another suffix, and as `curves`.
    """
    figure = curves(
        comparisons, metric=metric, class_=class_, aggregation=aggregation, split=split, log=log, agreements=agreements,
        forecasts=forecasts, results=results,
    )  # fmt: skip
    save(figure, path)


@styled
def curves(
    comparisons: "pa.Table",
    *,
    metric: str = "mean_iou",
    class_: str = "macro",
    aggregation: str = "dataset",
    split: str = "test",
    log: bool = False,
    agreements: Sequence[Agreement] = (),
    over: Axis = "labelled_images",
    forecasts: Sequence[Mapping[str, Any]] = (),
    results: "pa.Table | None" = None,
) -> "Figure":
    """Draw mean and 95 % interval over labelled images, in a panel per architecture and backbone.

    Colours are pathways, or the values of the first factor that varies if there is one pathway only; lines and markers
    are the values of other factors. Up to five curves of one panel are named beside them, else in a legend.

    Args:
        log: Whether labelled images are on a logarithmic axis.
        over: Column of the horizontal axis; cells without a value above 0 in it are not drawn.
        forecasts: Records of `schema.forecasts` of this series, drawn as dashed lines; on a linear axis only those of
            twice the largest measured amount, beyond which the measured part would be too narrow.
        results: The results table; the value of each replicate is drawn as a small point.
        agreements: Agreement of annotators in this metric, drawn as horizontal lines: what a network may reach.

    Raises:
        ValueError: If the table has no such series, or it is undefined in every cell.
    """
    selection = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records = [record for record in filter_records(comparisons.to_pylist(), selection) if record["mean"] is not None]
    records = [record for record in records if (record.get(over) or 0) > 0 or over == "labelled_images"]
    if not records:
        raise ValueError(f"{metric} is undefined in every cell; allowed: a metric with a mean; choose another")
    factors = Factors.of(records, factor_columns(comparisons.column_names))
    furthest = max(record[over] for record in records) * (4 if log else 2)
    forecasts = [r for r in forecasts if r["mean"] is not None and r["labelled_images"] <= furthest]
    points = [] if results is None else _replicates(results, selection, records, over)
    figure = _figure(records, factors, agreements, log=log, over=over, forecasts=forecasts, points=points)
    label_panels(figure, AXES[over], _axis_label(metric, class_, aggregation, split, unit_of(records)))
    return figure


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What factors are drawn as: panels, colours, and lines and markers."""

    panels: tuple[str, ...]
    colour: str
    lines: tuple[str, ...]

    @classmethod
    def of(cls, records: Sequence[ComparisonRecord], factors: Sequence[str]) -> Self:
        """Return the factors that vary; colours are pathways if several, else the first factor that varies."""
        varying = [name for name in factors if _varies(records, name)]
        colour = "pathway" if "pathway" in varying or not varying else varying[0]
        panels = tuple(name for name in PANEL if name != colour)
        return cls(panels=panels, colour=colour, lines=tuple(n for n in varying if n not in (*PANEL, colour)))

    @property
    def arms(self) -> tuple[str, ...]:
        """Return the factors of the curves of a panel."""
        return (self.colour, *self.lines)


def _replicates(
    results: "pa.Table", selection: Mapping[str, str], records: Sequence[ComparisonRecord], over: Axis
) -> list[dict[str, Any]]:
    """Return the values of the replicates of the drawn cells, each with the amount of its cell."""
    names = (*factor_columns(results.column_names), study_level(records))
    amounts = {_label(record, names): record[over] for record in records}
    rows = [row for row in filter_records(results.to_pylist(), selection) if row["value"] is not None]
    with_amounts = [{**row, over: amounts.get(_label(row, names))} for row in rows]
    return [row for row in with_amounts if row[over] is not None]


def _axis_label(metric: str, class_: str, aggregation: str, split: str, unit: str = "") -> str:
    """Return the label of the metric's axis, such as "Mean IoU (pooled over test images)"."""
    of_class = {"macro": "", "weighted": ", weighted by class size"}.get(class_, f", {class_}")
    split, _, annotator = split.partition("@")
    part, _, variant = split.partition("_")
    images = f"{part} images{VARIANTS.get(variant, '')}"
    images += f", against the annotator {annotator}" if annotator else ""
    return f"{metric_title(metric, unit)}{of_class} ({AGGREGATIONS.get(aggregation, aggregation)} {images})"


def _figure(
    records: Sequence[ComparisonRecord],
    factors: Factors,
    agreements: Sequence[Agreement],
    *,
    log: bool,
    over: Axis,
    forecasts: Sequence[Mapping[str, Any]],
    points: Sequence[Mapping[str, Any]],
) -> "Figure":
    panel_labels = _labels(records, factors.panels)
    styles = _styles(records, factors)
    is_named = len(panel_labels) == 1 and len(styles) <= MAX_LABELS and not factors.lines
    natural = 6.0 if len(panel_labels) == 1 else 1.0 + 2.9 * min(3, math.ceil(math.sqrt(len(panel_labels))))
    columns = columns_within(canvas_width(natural), math.ceil(math.sqrt(len(panel_labels))), least=2.4)
    height = 3.4 if len(panel_labels) == 1 else 2.5
    figure = new_figure(natural, (0.3 if is_named else 0.8) + height * math.ceil(len(panel_labels) / columns))
    grid = panels(figure, len(panel_labels), columns=columns)
    sizes = sorted({record[over] for record in records})
    for axes, panel in zip(grid, panel_labels, strict=True):
        records_of_panel = [record for record in records if _label(record, factors.panels) == panel]
        dodge = _dodge(sizes, len(styles), log=log)
        _points(axes, [p for p in points if _label(p, factors.panels) == panel], styles, factors, dodge, over)
        _draw(axes, records_of_panel, styles, factors, dodge, over)
        of_panel = [record for record in forecasts if _label(record, factors.panels) == panel]
        _extrapolate(axes, records_of_panel, of_panel, styles, factors, dodge)
        for index, agreement in enumerate(agreements):
            axes.axhline(agreement.mean, **_agreement_style(index))
        axes.set_title(", ".join(panel))
        if over == "annotation_hours":
            _continuous_ticks(axes, log=log)
        else:
            _ticks(axes, sorted({*sizes, *(record["labelled_images"] for record in forecasts)}), log=log)
    if is_named:
        _name_curves(grid[0], records, forecasts, styles, factors, over, height - 0.7)
    handles = _handles(
        records, factors, agreements, is_named=is_named, points=bool(points), extrapolated=bool(forecasts)
    )
    if handles:
        legend_below(figure, handles)
    return figure


def _name_curves(
    axes: "Axes",
    records: Sequence[ComparisonRecord],
    forecasts: Sequence[Mapping[str, Any]],
    styles: Mapping[Label, PlotStyle],
    factors: Factors,
    over: Axis,
    height: float,
) -> None:
    """Write the name of each curve to the right of its end, in its colour, moved apart where names would overlap.

    `height` is about that of the axes in inches at the font size of the design.
    """
    low, high = axes.get_ylim()
    gap = 1.25 * current().font / current().scale / 72 / height * (high - low)
    ends = {}
    for label in styles:
        last = max((r for r in records if _label(r, factors.arms) == label), key=lambda r: float(r[over]))
        ahead = [r for r in forecasts if _label(r, factors.arms) == label] if over == "labelled_images" else []
        ends[label] = float(max(ahead, key=lambda r: float(r[over]), default=last)["mean"])
    places = _apart(sorted(ends.items(), key=lambda item: item[1]), gap, (low, high))
    for label, place in places.items():
        axes.annotate(
            label[0], (1.0, place), xytext=(4, 0), textcoords="offset points", xycoords=axes.get_yaxis_transform(),
            va="center", color=styles[label]["color"], fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def _apart(ends: Sequence[tuple[Label, float]], gap: float, limits: tuple[float, float]) -> dict[Label, float]:
    """Return places at least `gap` apart, near those given in rising order, within the limits if they fit."""
    places = [value for _, value in ends]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    shift = sum(value - place for (_, value), place in zip(ends, places, strict=True)) / len(places)
    shift = max(min(shift, limits[1] - places[-1]), limits[0] - places[0])
    return {label: place + shift for (label, _), place in zip(ends, places, strict=True)}


def _dodge(sizes: Sequence[float], arms: int, *, log: bool) -> Callable[[float, float], float]:
    """Return a function that shifts the points of an arm, given size and offset, so that arms do not overlap."""
    if log:
        return lambda size, offset: float(size * 2 ** (min(0.05, 0.3 / arms) * offset))
    step = min(0.018, 0.11 / arms) * (sizes[-1] - sizes[0] or 1)
    return lambda size, offset: size + step * offset


def _points(
    axes: "Axes",
    rows: Sequence[Mapping[str, Any]],
    styles: Mapping[Label, PlotStyle],
    factors: Factors,
    dodge: Callable[[float, float], float],
    over: Axis,
) -> None:
    """Draw the value of each replicate as a small point; those of a cell beside each other, by fold and seed."""
    for index, (label, style) in enumerate(styles.items()):
        cells: dict[float, list[float]] = {}
        for row in sorted(rows, key=lambda row: (row["fold"], row["seed"])):
            if _label(row, factors.arms) == label:
                cells.setdefault(row[over], []).append(row["value"])
        offset = index - (len(styles) - 1) / 2
        x = [
            dodge(size, offset + 0.9 * ((number + 0.5) / len(values) - 0.5))
            for size, values in cells.items()
            for number in range(len(values))
        ]
        y = [value for values in cells.values() for value in values]
        axes.plot(x, y, ".", color=style["color"], markersize=5 * current().scale, alpha=0.6, markeredgewidth=0)


def _draw(
    axes: "Axes",
    records: Sequence[ComparisonRecord],
    styles: Mapping[Label, PlotStyle],
    factors: Factors,
    dodge: Callable[[float, float], float],
    over: Axis,
) -> None:
    for index, (label, style) in enumerate(styles.items()):
        # One record per size, because every baseline of a cell repeats its mean.
        arm = {r[over]: r for r in records if _label(r, factors.arms) == label}
        centre = (len(styles) - 1) / 2
        sizes = sorted(arm)
        means = [arm[size]["mean"] for size in sizes]
        bars = [[_half_width(arm[size], end) for size in sizes] for end in ("ci_low", "ci_high")]
        drawn = axes.errorbar(
            [dodge(size, index - centre) for size in sizes], means, bars, elinewidth=0.7 * current().line, **style
        )
        for interval in drawn[2]:
            interval.set_alpha(0.55)
    tidy(axes)


def _extrapolate(
    axes: "Axes",
    records: Sequence[ComparisonRecord],
    forecasts: Sequence[Mapping[str, Any]],
    styles: Mapping[Label, PlotStyle],
    factors: Factors,
    dodge: Callable[[float, float], float],
) -> None:
    """Draw dashed lines from the largest measured amount of each arm to its forecasts, with their intervals."""
    names = factors.arms
    for index, (label, style) in enumerate(styles.items()):
        ahead = sorted((r for r in forecasts if _label(r, names) == label), key=lambda r: r["labelled_images"])
        measured = [r for r in records if _label(r, names) == label]
        if not ahead or not measured:
            continue
        last = max(measured, key=lambda record: record["labelled_images"])
        offset = index - (len(styles) - 1) / 2
        sizes = [dodge(record["labelled_images"], offset) for record in (last, *ahead)]
        means = [record["mean"] for record in (last, *ahead)]
        ends = [[0.0, *(abs(r[end] - r["mean"]) for r in ahead)] for end in ("pi_low", "pi_high")]
        line = current().line
        dashed = {"color": style["color"], "linestyle": DASHED, "linewidth": 0.8 * line, "alpha": 0.7}
        axes.errorbar(sizes, means, ends, elinewidth=0.6 * line, capsize=2 * line, **dashed)


def _half_width(record: ComparisonRecord, end: str) -> float:
    return 0.0 if record[end] is None else abs(record[end] - record["mean"])


def _ticks(axes: "Axes", sizes: Sequence[int], *, log: bool) -> None:
    from matplotlib.ticker import NullLocator

    ticks: list[int] = []
    for size in reversed(sizes):
        if not ticks or (ticks[-1] >= 1.2 * size if log else ticks[-1] - size >= 0.07 * (sizes[-1] - sizes[0])):
            ticks.append(size)
    if log:
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _continuous_ticks(axes: "Axes", *, log: bool) -> None:
    """Place ticks at round numbers: hours of arms with other labels fall between those of others."""
    from matplotlib.ticker import ScalarFormatter

    if log:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())


def _styles(records: Sequence[ComparisonRecord], factors: Factors) -> Mapping[Label, PlotStyle]:
    coloured, further = _labels(records, [factors.colour]), _labels(records, factors.lines)
    arms = _labels(records, factors.arms)
    return {
        arm: {**point_style(coloured.index(arm[:1])), **(_line(further.index(arm[1:])) if factors.lines else {})}
        for arm in sorted(arms, key=lambda arm: (coloured.index(arm[:1]), further.index(arm[1:])))
    }


def _line(index: int) -> PlotStyle:
    return {"marker": MARKERS[index % len(MARKERS)], "linestyle": LINES[index % len(LINES)]}


def _agreement_style(index: int) -> PlotStyle:
    return {"color": "#333333", "linestyle": LINES[-1 - index % len(LINES)], "linewidth": 0.8 * current().line}


def _handles(
    records: Sequence[ComparisonRecord], factors: Factors, agreements: Sequence[Agreement], *,
    is_named: bool, points: bool, extrapolated: bool,
) -> "list[Line2D]":  # fmt: skip
    from matplotlib.lines import Line2D

    def entry(label: str, style: PlotStyle) -> Line2D:
        return Line2D([], [], label=label, **style)

    handles = []
    if not is_named:
        for index, label in enumerate(_labels(records, [factors.colour])):
            handles.append(entry(label[0], point_style(index) | ({"marker": ""} if factors.lines else {})))
    if factors.lines:
        title = ", ".join(map(factor_title, factors.lines))
        for index, label in enumerate(_labels(records, factors.lines)):
            handles.append(entry(f"{title}: {', '.join(label)}", {**_line(index), "color": GREY}))
    handles += [entry(agreement.label, _agreement_style(index)) for index, agreement in enumerate(agreements)]
    if points:
        handles.append(entry("One replicate", {"color": GREY, "linestyle": "", "marker": ".", "alpha": 0.6}))
    if extrapolated:
        handles.append(entry("Extrapolated, 90 % intervals", {"color": GREY, "linestyle": DASHED}))
    return handles


def _labels(records: Sequence[ComparisonRecord], names: Sequence[str]) -> list[Label]:
    return list(dict.fromkeys(_label(record, names) for record in records))


def _label(record: Mapping[str, Any], names: Sequence[str]) -> Label:
    return tuple(record[name] for name in names)


def _varies(records: Sequence[ComparisonRecord], name: str) -> bool:
    return len({record[name] for record in records}) > 1
