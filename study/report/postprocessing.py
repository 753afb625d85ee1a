"""Section of the report on post-processing: scores before and after, and the rules of each network."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from results.postprocessing.rules import ClassRule
from results.report.answers import format_number, select_records
from results.report.page import Block, Grid, GridCell, Text, number_columns, text_columns
from results.schema import POSTPROCESSED, ComparisonRecord, metric_name
from results.tables.sentences import cell_key
from study.inference.scored_evaluation import evaluation_record, rules_of
from study.report.facts import Chain, Facts

if TYPE_CHECKING:
    import pyarrow as pa

METRICS = ("dice", "dice_empty_is_one", "precision", "recall")


def postprocessing_blocks(
    facts: Facts, comparisons: "pa.Table", best: ComparisonRecord | None, chains: Sequence[Chain]
) -> Iterator[Block]:
    """Yield the scores of the best cell before and after post-processing, and the rules of its networks."""
    if best is None:
        return
    after = select_records(comparisons, split=f"test{POSTPROCESSED}")
    if all(cell_key(record) != cell_key(best) for record in after):
        return
    yield Text(
        text="Means over the test images of the best cell, before and after post-processing. Rules that the study file "
        "does not fix were chosen on the validation images of each network."
    )
    yield _scores(comparisons, best)
    yield _rules(facts, chains)


def _scores(comparisons: "pa.Table", best: ComparisonRecord) -> Grid:
    rows = []
    for class_ in comparisons["class"].unique().to_pylist():
        cells = []
        for metric in METRICS:
            cells += [_mean(comparisons, best, split, class_, metric) for split in ("test", f"test{POSTPROCESSED}")]
        if any(cell.value is not None for cell in cells):
            rows.append([GridCell(class_), *cells])
    names = [f"{metric_name(metric)}{end}" for metric in METRICS for end in ("", " after")]
    caption = "Scores by class (per case), before and after post-processing."
    return Grid(caption=caption, columns=[*text_columns("class"), *number_columns(*names)], rows=rows)


def _mean(comparisons: "pa.Table", best: ComparisonRecord, split: str, class_: str, metric: str) -> GridCell:
    records = select_records(comparisons, split=split, class_=class_, metric=metric, aggregation="case")
    value = next((record["mean"] for record in records if cell_key(record) == cell_key(best)), None)
    return GridCell(format_number(value), value)


def _rules(facts: Facts, chains: Sequence[Chain]) -> Grid:
    rows = []
    for chain in chains:
        digest = chain.stages[-1]
        if chain.scoring is None or not facts.store.scored(digest, chain.scoring):
            continue
        by_class: Mapping[str, ClassRule] = rules_of(evaluation_record(facts.store, digest, chain.scoring))
        for class_, rule in by_class.items():
            numbers = [rule.empty.top, rule.empty.area, rule.empty.bottom] if rule.empty else [None] * 3
            rows.append([
                GridCell(f"fold {chain.fold} seed {chain.seed}"),
                GridCell(class_),
                *(GridCell("" if value is None else f"{value:g}", value) for value in (*numbers, rule.smallest_area)),
                GridCell("yes" if rule.largest_component else "no"),
            ])  # fmt: skip
    columns = [
        *text_columns("network", "class"), *number_columns("top", "area", "bottom", "smallest area"),
        *text_columns("largest component only"),
    ]  # fmt: skip
    caption = "Rules of each network: probabilities, and pixels at the evaluated size."
    return Grid(caption=caption, columns=columns, rows=rows, heads=2)
