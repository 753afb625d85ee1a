"""The figures of a report, each with what it shows in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results import figures
from results.figures.drawing import COLOURS
from results.report.answers import NAMES, Record, arm_name, best_cell, chosen, number, once, title, varying
from results.report.page import Block, Picture, Text, embedded
from results.schema import Level, factor_columns
from results.statistics.notes import lacks_replicates
from study.report.cost import pathway_groups
from study.report.facts import Chain, Facts

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

MOST_PAIRS = 20


@dataclass(kw_only=True, eq=False)
class Drawer:
    """Draws from the tables and the store; `folder` also gets each figure as a file of that `format`."""

    facts: Facts
    comparisons: "pa.Table"
    results: "pa.Table"
    level: Level
    log: bool = False
    folder: Path | None = None
    format: str = "svg"

    @cached_property
    def best(self) -> Record | None:
        """Return the best cell."""
        return best_cell(chosen(self.comparisons))

    @cached_property
    def factors(self) -> list[str]:
        """Return the factors that tell arms apart."""
        return varying(chosen(self.comparisons))

    def chains(self, cell: Record) -> list[Chain]:
        """Return the finished replicates of a cell."""
        return [
            chain
            for chain in self.facts.chains
            if chain.labelled == cell[self.level]
            and all(cell[name] == value for name, value in chain.factors.items())
            and self._done(chain)
        ]

    def _done(self, chain: Chain) -> bool:
        stage = self.facts.stages.get(chain.stages[-1])
        return stage is not None and stage.seconds is not None

    @cached_property
    def focus(self) -> list[Record]:
        """Return the best cell and those that differ from it in the pathway only, best first."""
        best = self.best
        if best is None:
            return []
        same = [name for name in (*self.factors, self.level) if name != "pathway"]
        near = [record for record in once(chosen(self.comparisons)) if all(record[n] == best[n] for n in same)]
        defined = [record for record in near if record["mean"] is not None and not lacks_replicates(record["note"])]
        return sorted(defined, key=lambda record: -float(record["mean"]))[: len(COLOURS)]

    @cached_property
    def places(self) -> dict[str, int]:
        """Return the place of each pathway's colour, by the name of its arm: the same in every figure."""
        pathways = list(dict.fromkeys(record["pathway"] for record in chosen(self.comparisons)))
        return {arm_name(cell, self.factors): pathways.index(cell["pathway"]) for cell in self.focus}

    def picture(self, name: str, figure: "Figure", *, alt: str, caption: str, wide: bool = False) -> Picture:
        """Return a figure for the page; written as a file too where that is wanted."""
        if self.folder is not None:
            figures.save(figure, self.folder / f"{name}.{self.format}")
        return Picture(data=embedded(figures.svg(figure)), alt=alt, caption=caption, wide=wide)

    def curves(self) -> Iterator[Block]:
        """Yield the learning curves of mean IoU and Dice."""
        for metric in ("mean_iou", "dice"):
            records = once(chosen(self.comparisons, metric=metric))
            if not any(record["mean"] is not None for record in records):
                continue
            name, best = NAMES[metric], best_cell(records)
            sizes = sorted({record["labelled_images"] for record in records})
            alt = f"Line chart of {name} against labelled images ({', '.join(map(str, sizes))})."
            if best is not None:
                top = f"{arm_name(best, self.factors)} with {best['labelled_images']} images: {number(best['mean'])}"
                alt += f" The highest is {top}."
            caption = f"{title(metric)} on the test images by number of labelled images; bars are 95 % intervals."
            figure = figures.curves(self.comparisons, metric=metric, log=self.log)
            yield self.picture(f"learning_curve_{metric}", figure, alt=alt, caption=caption, wide=True)

    def classes(self) -> Iterator[Block]:
        """Yield the bars by class of the best cell and those beside it."""
        arms: dict[str, dict[str, figures.Interval]] = {}
        by_cell: dict[tuple[Any, ...], list[Record]] = {}
        for record in once_by_class(self.comparisons, "dice"):
            by_cell.setdefault(self._key(record), []).append(record)
        for cell in self.focus:
            arms[arm_name(cell, self.factors)] = {
                record["class"]: figures.Interval(record["mean"], record["ci_low"], record["ci_high"])
                for record in by_cell.get(self._key(cell), ())
                if record["class"] not in ("macro", "weighted") and record["mean"] is not None
            }
        arms = {name: values for name, values in arms.items() if values}
        if not arms:
            return
        told = "; ".join(
            f"{arm}: " + ", ".join(f"{name} {number(value.mean)}" for name, value in values.items())
            for arm, values in arms.items()
        )
        caption = (
            f"Dice of each class with {self.focus[0]['labelled_images']} labelled images; lines are 95 % intervals."
        )
        figure = figures.class_bars(arms, label="Dice", places=self.places)
        yield self.picture("classes", figure, alt=f"Bar chart of Dice by class. {told}.", caption=caption, wide=True)

    def _key(self, record: Record) -> tuple[Any, ...]:
        return tuple(record[name] for name in (*self.factors, self.level))

    def graph(self) -> Iterator[Block]:
        """Yield the pathways as one graph."""
        groups = pathway_groups(self.facts)
        if not groups:
            yield Text(text="No stage is known yet.")
            return
        yield self.picture("pathways", figures.pathway_graph(groups), **graph_words(groups), wide=True)

    def pairs(self, baselines: Mapping[str, Mapping[str, str]]) -> Iterator[Block]:
        """Yield the paired differences; `baselines` gives by family the factors it sets."""
        tested = [r for r in chosen(self.comparisons) if r["difference"] is not None and r["baseline"] in baselines]
        tested.sort(key=lambda r: (r["p_adjusted"] is None, r["p_adjusted"] or 0.0, -abs(r["difference"])))
        values = self._values()
        rows = []
        for record in tested[:MOST_PAIRS]:
            paired = self._paired(record, baselines[record["baseline"]], values)
            if paired:
                label = f"{arm_name(record, self.factors)}, {record['labelled_images']} images"
                differences, seeds = [value for _, value in paired], [seed for seed, _ in paired]
                rows.append(figures.Pairs(label=label, differences=differences, seeds=seeds, p=record["p_adjusted"]))
        if not rows:
            return
        told = "; ".join(f"{row.label}: mean {np.mean(row.differences):+.3f}" for row in rows)
        cut = f" The {len(rows)} of {len(tested)} comparisons with the smallest p." if len(tested) > len(rows) else ""
        caption = f"Difference in mean IoU to the baseline ({'; '.join(baselines)}), same fold and seed.{cut}"
        figure = figures.paired_differences(rows, label="difference in mean IoU (right of 0: better)")
        yield self.picture("differences", figure, alt=f"Dot chart. {told}.", caption=caption, wide=True)

    def _values(self) -> Mapping[tuple[Any, ...], Mapping[tuple[int, int], float]]:
        found: dict[tuple[Any, ...], dict[tuple[int, int], float]] = {}
        for row in chosen(self.results):
            if row["value"] is not None:
                found.setdefault(self._arm(row), {})[row["fold"], row["seed"]] = row["value"]
        return found

    def _arm(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        factors = factor_columns(self.results.column_names)
        return *(row[name] for name in factors), row[self.level]

    def _paired(
        self, record: Record, rule: Mapping[str, str], values: Mapping[tuple[Any, ...], Mapping[tuple[int, int], float]]
    ) -> Sequence[tuple[int, float]]:
        mine, theirs = values.get(self._arm(record), {}), values.get(self._arm({**record, **rule}), {})
        return [(place[1], mine[place] - theirs[place]) for place in sorted(mine.keys() & theirs.keys())]

    def further(self) -> Iterator[Block]:
        """Yield calibration, ROC, confusion and training curves of the best cell and those beside it."""
        from study.report.pixel_figures import pixel_figures, training_figure

        yield from pixel_figures(self)
        yield from training_figure(self)


def graph_words(groups: Sequence[figures.Group]) -> dict[str, str]:
    """Return what the graph of the pathways shows, and its caption."""
    told = "; ".join(_box(group, groups) for group in groups)
    caption = (
        "Stages from left to right, pathways named where they end. Orange boxes with a thick edge serve several "
        "pathways; a box tells which weights it takes over from the stage before."
    )
    return {"alt": f"Graph of the pathways. {told}.", "caption": caption}


def once_by_class(comparisons: "pa.Table", metric: str) -> list[Record]:
    """Return the test records of every class."""
    import pyarrow.compute as pc

    records: list[Record] = comparisons.filter(
        (pc.field("split") == "test") & (pc.field("aggregation") == "dataset") & (pc.field("metric") == metric)
    ).to_pylist()
    return records


def _box(group: figures.Group, groups: Sequence[figures.Group]) -> str:
    parent = "" if group.parent is None else f" after {groups[group.parent].title}"
    ends = f", ends pathway {', '.join(group.ends)}" if group.ends else ""
    return f"{group.title}{parent} ({', '.join(group.lines)}{ends})"
