"""Figures of a study, each with a caption and an alternative text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results import figures
from results.figures.style import COLOURS
from results.metrics.agreement import AGREEMENT, agreements
from results.report.answers import (
    arm_name,
    best_cell,
    class_records,
    format_number,
    one_per_cell,
    select_records,
    varying_factors,
)
from results.report.forecasts import EXTRAPOLATED, forecasts_of
from results.report.page import Text
from results.report.study_figure import Drawn, StudyFigure
from results.schema import ComparisonRecord, Level, factor_columns, metric_name, metric_title
from results.statistics.notes import lacks_replicates
from results.tables.hours import hours_text
from study.analysis.tables import read_forecasts
from study.report.cases import predict_cases, select_extremes
from study.report.cost import pathway_groups
from study.report.facts import Chain, Facts

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PAIRS = 20


@dataclass(kw_only=True, eq=False)
class Drawer:
    """Draws figures from the tables and the store."""

    facts: Facts
    comparisons: "pa.Table"
    results: "pa.Table"
    level: Level
    log: bool = False
    baselines: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Factors that the baseline sets, by name of the family of comparisons."""

    @cached_property
    def best(self) -> ComparisonRecord | None:
        """Return the best cell."""
        return best_cell(select_records(self.comparisons))

    @cached_property
    def factors(self) -> list[str]:
        """Return the factors that differ between arms."""
        return varying_factors(select_records(self.comparisons))

    def chains(self, cell: ComparisonRecord) -> list[Chain]:
        """Return the finished replicates of a cell."""
        return [
            chain
            for chain in self.facts.chains
            if chain.labelled == cell[self.level]
            and all(cell[name] == value for name, value in chain.factors.items())
            and self._is_finished(chain)
        ]

    def _is_finished(self, chain: Chain) -> bool:
        stage = self.facts.stages.get(chain.stages[-1])
        return stage is not None and stage.seconds is not None

    @property
    def colour_factor(self) -> str:
        """Return the factor whose values have colours: the pathway if there are several, else the first that varies."""
        return "pathway" if "pathway" in self.factors else self.factors[0]

    @cached_property
    def focus(self) -> list[ComparisonRecord]:
        """Return the best cell and the cells that differ from it in the factor of the colours only, best first."""
        best = self.best
        if best is None:
            return []
        fixed = [name for name in (*self.factors, self.level) if name != self.colour_factor]
        candidates = [
            record
            for record in one_per_cell(select_records(self.comparisons))
            if all(record[n] == best[n] for n in fixed)
        ]
        defined = [
            record for record in candidates if record["mean"] is not None and not lacks_replicates(record["note"])
        ]
        return sorted(defined, key=lambda record: -float(record["mean"]))[: len(COLOURS)]

    @cached_property
    def colours(self) -> dict[str, int]:
        """Return the index of the colour of each arm, the same in every figure."""
        factor = self.colour_factor
        values = list(dict.fromkeys(record[factor] for record in select_records(self.comparisons)))
        return {arm_name(cell, self.factors): values.index(cell[factor]) for cell in self.focus}

    def curves(self) -> Iterator[Drawn]:
        """Yield the learning curves of mean IoU and Dice."""
        for metric in ("mean_iou", "dice"):
            records = one_per_cell(select_records(self.comparisons, metric=metric))
            if not any(record["mean"] is not None for record in records):
                continue
            best = best_cell(records)
            sizes = sorted({record["labelled_images"] for record in records})
            alt = f"Line chart of {metric_name(metric)} against labelled images ({', '.join(map(str, sizes))})."
            if best is not None:
                images, mean = best["labelled_images"], format_number(best["mean"])
                alt += f" The highest is {arm_name(best, self.factors)} with {images} images: {mean}."
            caption = (
                f"{metric_title(metric)} on the test images by number of labelled images: means with 95 % intervals, "
                "and a small point for each replicate."
            )
            agreement = agreements(self._agreement_rows, metric=metric)
            caption = " ".join([caption, *(pair.sentence(metric) for pair in agreement)])
            forecasts = self.forecast_records(metric=metric)
            if any(record["mean"] is not None for record in forecasts):
                caption += f" {EXTRAPOLATED}"
            figure = figures.curves(
                self.comparisons, metric=metric, log=self.log, agreements=agreement, forecasts=forecasts,
                results=self.results,
            )  # fmt: skip
            yield StudyFigure(name=f"learning_curve_{metric}", figure=figure, alt=alt, caption=caption)

    def forecast_records(self, metric: str = "mean_iou") -> list[dict[str, Any]]:
        """Return the forecasts of a metric pooled over test images."""
        return forecasts_of(self._forecasts, metric)

    @cached_property
    def _forecasts(self) -> "pa.Table | None":
        return read_forecasts(self.facts.store.study(self.facts.name))

    def curves_over_hours(self) -> Iterator[Drawn]:
        """Yield the learning curve of mean IoU over hours of annotation, where these are known."""
        records = one_per_cell(select_records(self.comparisons))
        drawn = [record for record in records if record["mean"] is not None and (record["annotation_hours"] or 0) > 0]
        if not drawn:
            return
        hours = [record["annotation_hours"] for record in drawn]
        alt = (
            f"Line chart of {metric_name('mean_iou')} against hours of annotation, from {hours_text(min(hours))} to "
            f"{hours_text(max(hours))}."
        )
        caption = (
            f"{metric_title('mean_iou')} on the test images by hours of annotation, those of pretraining included; "
            "means with 95 % intervals, and a small point for each replicate."
        )
        figure = figures.curves(self.comparisons, log=self.log, over="annotation_hours", results=self.results)
        yield StudyFigure(name="learning_curve_hours", figure=figure, alt=alt, caption=caption)

    @cached_property
    def _agreement_rows(self) -> list[dict[str, Any]]:
        """Return the rows of results with the scores of annotators against each other."""
        import pyarrow.compute as pc

        rows: list[dict[str, Any]] = self.results.filter(pc.starts_with(pc.field("split"), AGREEMENT)).to_pylist()
        return rows

    def classes(self) -> Iterator[Drawn]:
        """Yield the bar chart of Dice by class for the cells in focus."""
        arms: dict[str, dict[str, figures.Interval]] = {}
        by_cell: dict[tuple[Any, ...], list[ComparisonRecord]] = {}
        for record in class_records(self.comparisons, "dice"):
            by_cell.setdefault(self._cell_key(record), []).append(record)
        for cell in self.focus:
            arms[arm_name(cell, self.factors)] = {
                record["class"]: figures.Interval(record["mean"], record["ci_low"], record["ci_high"])
                for record in by_cell.get(self._cell_key(cell), ())
                if record["class"] not in ("macro", "weighted") and record["mean"] is not None
            }
        arms = {name: values for name, values in arms.items() if values}
        if not arms:
            return
        description = "; ".join(
            f"{arm}: " + ", ".join(f"{name} {format_number(value.mean)}" for name, value in values.items())
            for arm, values in arms.items()
        )
        caption = (
            f"Dice of each class with {self.focus[0]['labelled_images']} labelled images; lines are 95 % intervals."
        )
        figure = figures.class_bars(arms, label=metric_title("dice"), colour_indices=self.colours)
        yield StudyFigure(
            name="classes", figure=figure, alt=f"Bar chart of Dice by class. {description}.", caption=caption
        )

    def _cell_key(self, record: ComparisonRecord) -> tuple[Any, ...]:
        return tuple(record[name] for name in (*self.factors, self.level))

    def pairs(self) -> Iterator[Drawn]:
        """Yield the paired differences."""
        baselines = self.baselines
        tested = [
            r for r in select_records(self.comparisons) if r["difference"] is not None and r["baseline"] in baselines
        ]
        tested.sort(key=lambda r: (r["p_adjusted"] is None, r["p_adjusted"] or 0.0, -abs(r["difference"])))
        values = self._values()
        rows = []
        for record in tested[:MAX_PAIRS]:
            paired = self._paired(record, baselines[record["baseline"]], values)
            if paired:
                label = f"{arm_name(record, self.factors)}, {record['labelled_images']} images"
                differences, seeds = [value for _, value in paired], [seed for seed, _ in paired]
                rows.append(figures.Pairs(label=label, differences=differences, seeds=seeds, p=record["p_adjusted"]))
        if not rows:
            return
        description = "; ".join(f"{row.label}: mean {np.mean(row.differences):+.3f}" for row in rows)
        selection = (
            f" The {len(rows)} of {len(tested)} comparisons with the smallest p." if len(tested) > len(rows) else ""
        )
        caption = (
            f"Difference in mean IoU to the baseline ({'; '.join(baselines)}), one point per fold and seed.{selection}"
        )
        figure = figures.paired_differences(rows, label="Difference in mean IoU to the baseline (positive: better)")
        yield StudyFigure(name="differences", figure=figure, alt=f"Dot chart. {description}.", caption=caption)

    def _values(self) -> Mapping[tuple[Any, ...], Mapping[tuple[int, int], float]]:
        values: dict[tuple[Any, ...], dict[tuple[int, int], float]] = {}
        for row in select_records(self.results):
            if row["value"] is not None:
                values.setdefault(self._arm_key(row), {})[row["fold"], row["seed"]] = row["value"]
        return values

    def _arm_key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        factors = factor_columns(self.results.column_names)
        return *(row[name] for name in factors), row[self.level]

    def _paired(
        self,
        record: ComparisonRecord,
        rule: Mapping[str, str],
        values: Mapping[tuple[Any, ...], Mapping[tuple[int, int], float]],
    ) -> Sequence[tuple[int, float]]:
        arm, baseline = values.get(self._arm_key(record), {}), values.get(self._arm_key({**record, **rule}), {})
        return [(key[1], arm[key] - baseline[key]) for key in sorted(arm.keys() & baseline.keys())]

    def more_figures(self) -> Iterator[Drawn]:
        """Yield ROC curves, reliability diagram, confusion matrix and training curves."""
        from study.report.pixel_figures import pixel_figures, training_figure

        yield from pixel_figures(self)
        yield from training_figure(self)

    def cases(self, cache: Path) -> Iterator[Drawn]:
        """Yield the worst, median and best test image of the best cell, or why they are not shown."""
        chains = self.chains(self.best) if self.best else []
        images = select_extremes(self.facts, chains) if chains else []
        if not images:
            return
        try:
            cases, classes = predict_cases(self.facts, images, cache)
        except (ValueError, OSError, RuntimeError) as error:
            yield Text(text=f"Test images are not shown: {error}.")
            return
        figure = figures.outline_cases(cases, classes)
        scores = "; ".join(f"{name} {image.image}: Dice {image.dice:.3f}" for name, image in images)
        shown = ", ".join(classes[index] for index in figures.shown_classes(cases, classes))
        yield StudyFigure(
            name="cases",
            figure=figure,
            alt=f"Test images with the outlines of truth and prediction of {shown}. {scores}.",
            caption="Worst, median and best test image of the best cell, before post-processing, at the resolution "
            f"that was scored: {shown}. Check before sharing.",
        )


def pathway_figure(facts: Facts) -> Iterator[Drawn]:
    """Yield the pathways as one graph."""
    groups = pathway_groups(facts)
    if not groups:
        yield Text(text="No stage is planned or finished yet.")
        return
    description = "; ".join(_group_text(group, groups) for group in groups)
    caption = (
        "Stages from left to right; the name of a pathway follows its last stage. Orange boxes with a thick edge are "
        "shared by several pathways. A box names what a stage has of the previous one: its weights, or pseudo-labels."
    )
    alt = f"Graph of the pathways. {description}."
    yield StudyFigure(name="pathways", figure=figures.pathway_graph(groups), alt=alt, caption=caption)


def _group_text(group: figures.Group, groups: Sequence[figures.Group]) -> str:
    parent = "" if group.parent is None else f" after {groups[group.parent].title}"
    ends = f", ends pathway {', '.join(group.ends)}" if group.ends else ""
    return f"{group.title}{parent} ({', '.join(group.lines)}{ends})"
