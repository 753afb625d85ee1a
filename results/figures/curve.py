"""Learning curves: a metric over the number of labelled images, by arm."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from results.figures.drawing import COLOURS, LINES, MARKERS, new_figure, panels, save, tidy
from results.metrics.agreement import Agreement
from results.schema import ComparisonRecord, factor_columns, factor_title, metric_title, unit_of
from results.tables.layout import filter_records

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
AXES: Mapping[Axis, str] = {"labelled_images": "Labelled images", "annotation_hours": "Hours of annotation"}
"""Printed names of the horizontal axes."""
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
) -> None:
    """Save the figure of `curves` to `path`, as png, svg or pdf by its suffix.

    Raises ValueError for another suffix, and as `curves`.
    """
    figure = curves(
        comparisons, metric=metric, class_=class_, aggregation=aggregation, split=split, log=log, agreements=agreements,
        forecasts=forecasts,
    )  # fmt: skip
    save(figure, path)


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
) -> "Figure":
    """Draw mean and 95 % interval over labelled images, in a panel per architecture and backbone.

    Colours are pathways, lines and markers the values of other factors.

    Args:
        log: Whether labelled images are on a logarithmic axis.
        over: Column of the horizontal axis; cells without a value above 0 in it are not drawn.
        forecasts: Records of `schema.forecasts` of this series, drawn as dashed lines; on a linear axis only those of
            twice the largest measured amount, beyond which the measured part would be too narrow.
        agreements: Agreement of annotators in this metric, drawn as horizontal lines: what a network may reach.

    Raises:
        ValueError: If the table has no such series, or it is undefined in every cell.
    """
    selection = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records = [record for record in filter_records(comparisons.to_pylist(), selection) if record["mean"] is not None]
    records = [record for record in records if (record.get(over) or 0) > 0 or over == "labelled_images"]
    if not records:
        raise ValueError(f"{metric} is undefined in every cell; allowed: a metric with a mean; choose another")
    factors = factor_columns(comparisons.column_names)
    other_factors = [name for name in factors if name not in PANEL and name != "pathway" and _varies(records, name)]
    furthest = max(record[over] for record in records) * (4 if log else 2)
    forecasts = [r for r in forecasts if r["mean"] is not None and r["labelled_images"] <= furthest]
    figure = _figure(records, other_factors, agreements, log=log, over=over, forecasts=forecasts)
    figure.supylabel(_axis_label(metric, class_, aggregation, split, unit_of(records)), fontsize="medium")
    return figure


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
    other_factors: Sequence[str],
    agreements: Sequence[Agreement],
    *,
    log: bool,
    over: Axis, forecasts: Sequence[Mapping[str, Any]],
) -> "Figure":  # fmt: skip
    panel_labels = _labels(records, PANEL)
    columns = min(3, math.ceil(math.sqrt(len(panel_labels))))
    styles = _styles(records, other_factors)
    width, height = (3.3, 2.9) if len(panel_labels) > 1 else (4.6, 3.6)
    figure = new_figure(2.4 + width * columns, 0.6 + height * math.ceil(len(panel_labels) / columns))
    grid = panels(figure, len(panel_labels), columns=columns)
    sizes = sorted({record[over] for record in records})
    for axes, panel in zip(grid, panel_labels, strict=True):
        records_of_panel = [record for record in records if _label(record, PANEL) == panel]
        dodge = _dodge(sizes, log=log)
        _draw(axes, records_of_panel, styles, other_factors, dodge, over)
        of_panel = [record for record in forecasts if _label(record, PANEL) == panel]
        _extrapolate(axes, records_of_panel, of_panel, styles, other_factors, dodge)
        for index, agreement in enumerate(agreements):
            axes.axhline(agreement.mean, **_agreement_style(index))
        axes.set_title(", ".join(panel), fontsize="medium")
        if over == "annotation_hours":
            _continuous_ticks(axes, log=log)
        else:
            _ticks(axes, sorted({*sizes, *(record["labelled_images"] for record in forecasts)}), log=log)
    figure.supxlabel(AXES[over], fontsize="medium")
    handles = _handles(records, other_factors, agreements, extrapolated=bool(forecasts))
    figure.legend(handles=handles, loc="outside right upper", frameon=False)
    return figure


def _dodge(sizes: Sequence[float], *, log: bool) -> Callable[[float, float], float]:
    """Return a function that shifts the points of an arm, given size and offset, so that arms do not overlap."""
    if log:
        return lambda size, offset: float(size * 2 ** (0.035 * offset))
    step = 0.012 * (sizes[-1] - sizes[0] or 1)
    return lambda size, offset: size + step * offset


def _draw(
    axes: "Axes",
    records: Sequence[ComparisonRecord],
    styles: Mapping[Label, PlotStyle],
    other_factors: Sequence[str],
    dodge: Callable[[float, float], float],
    over: Axis,
) -> None:
    for index, (label, style) in enumerate(styles.items()):
        # One record per size, because every baseline of a cell repeats its mean.
        arm = {r[over]: r for r in records if _label(r, ("pathway", *other_factors)) == label}
        centre = (len(styles) - 1) / 2
        sizes = sorted(arm)
        means = [arm[size]["mean"] for size in sizes]
        bars = [[_half_width(arm[size], end) for size in sizes] for end in ("ci_low", "ci_high")]
        drawn = axes.errorbar([dodge(size, index - centre) for size in sizes], means, bars, elinewidth=1.2, **style)
        for interval in drawn[2]:
            interval.set_alpha(0.55)
    tidy(axes)


def _extrapolate(
    axes: "Axes",
    records: Sequence[ComparisonRecord],
    forecasts: Sequence[Mapping[str, Any]],
    styles: Mapping[Label, PlotStyle],
    other_factors: Sequence[str],
    dodge: Callable[[float, float], float],
) -> None:
    """Draw dashed lines from the largest measured amount of each arm to its forecasts, with their intervals."""
    names = ("pathway", *other_factors)
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
        dashed = {"color": style["color"], "linestyle": (0, (4, 3)), "linewidth": 1.2, "alpha": 0.7}
        axes.errorbar(sizes, means, ends, elinewidth=0.9, capsize=3, **dashed)


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


def _styles(records: Sequence[ComparisonRecord], other_factors: Sequence[str]) -> Mapping[Label, PlotStyle]:
    pathways, further = _labels(records, ["pathway"]), _labels(records, other_factors)
    arms = _labels(records, ("pathway", *other_factors))
    return {
        arm: {**_colour(pathways.index(arm[:1])), **_line(further.index(arm[1:]))}
        for arm in sorted(arms, key=lambda arm: (pathways.index(arm[:1]), further.index(arm[1:])))
    }


def _colour(index: int) -> PlotStyle:
    hollow = {"markerfacecolor": "white"} if index >= len(COLOURS) else {}
    return {"color": COLOURS[index % len(COLOURS)], **hollow}


def _line(index: int) -> PlotStyle:
    marker, line = MARKERS[index % len(MARKERS)], LINES[index % len(LINES)]
    return {"marker": marker, "linestyle": line, "markersize": 5, "linewidth": 1.6}


def _agreement_style(index: int) -> PlotStyle:
    return {"color": "#333333", "linestyle": LINES[-1 - index % len(LINES)], "linewidth": 1.2}


def _handles(
    records: Sequence[ComparisonRecord], other_factors: Sequence[str], agreements: Sequence[Agreement], *,
    extrapolated: bool,
) -> "list[Line2D]":  # fmt: skip
    from matplotlib.lines import Line2D

    def entry(label: str, style: PlotStyle) -> Line2D:
        return Line2D([], [], label=label, **style)

    handles = [entry("Pathway", {"linestyle": ""})]
    for index, label in enumerate(_labels(records, ["pathway"])):
        handles.append(entry(label[0], {**_line(0), "linestyle": "-", **_colour(index)}))
    if other_factors:
        handles += [entry("", {"linestyle": ""}), entry(", ".join(map(factor_title, other_factors)), {"linestyle": ""})]
        for index, label in enumerate(_labels(records, other_factors)):
            handles.append(entry(", ".join(label), {**_line(index), "color": "#555555"}))
    if agreements:
        handles.append(entry("", {"linestyle": ""}))
        handles += [entry(agreement.label, _agreement_style(index)) for index, agreement in enumerate(agreements)]
    if extrapolated:
        handles.append(
            entry("Extrapolated, 90 % intervals", {"color": "#555555", "linestyle": (0, (4, 3)), "linewidth": 1.2})
        )
    return handles


def _labels(records: Sequence[ComparisonRecord], names: Sequence[str]) -> list[Label]:
    return list(dict.fromkeys(_label(record, names) for record in records))


def _label(record: ComparisonRecord, names: Sequence[str]) -> Label:
    return tuple(record[name] for name in names)


def _varies(records: Sequence[ComparisonRecord], name: str) -> bool:
    return len({record[name] for record in records}) > 1
