"""The section of the report on post-processing."""

from pathlib import Path

import pyarrow.parquet as pq

from results.report.answers import best_cell, format_number, select_records
from results.report.page import Grid
from study.report.facts import Facts, facts_of
from study.report.figures import Drawer
from study.report.postprocessing import postprocessing_blocks
from study.store.paths import COMPARISONS, RESULTS
from tests.support.finished import CLASSES, Finished, finished


def grids(study: Finished) -> list[Grid]:
    facts: Facts = facts_of(study.plan, study.store)
    folder = study.store.study("tiny")
    comparisons, results = (pq.read_table(folder / name) for name in (COMPARISONS, RESULTS))
    drawer = Drawer(facts=facts, comparisons=comparisons, results=results, level="labelled_fraction")
    best = best_cell(select_records(comparisons))
    assert best is not None
    blocks = postprocessing_blocks(facts, comparisons, best, drawer.chains(best))
    return [block for block in blocks if isinstance(block, Grid)]


def test_scores_before_and_after_and_the_rules_of_each_network(tmp_path: Path) -> None:
    empty = {"top": 0.8, "area": 15, "bottom": 0.3}
    settings = {"empty": empty, "smallest_area": {CLASSES[0]: 7}, "largest_component": True}
    study = finished(tmp_path, overlapping=True, changes={"evaluate": {"size": 40, "postprocess": settings}})
    scores, rules = grids(study)
    table = pq.read_table(study.store.study("tiny") / COMPARISONS)
    for row in scores.rows:
        for split, column in (("test", 1), ("test_postprocessed", 2)):
            (record,) = select_records(table, split=split, class_=row[0].text, metric="dice", aggregation="case")
            assert row[column].text == format_number(record["mean"])
    assert {row[0].text for row in scores.rows} >= {*CLASSES, "macro"}
    texts = [[cell.text for cell in row] for row in rules.rows]
    expected = [(name, "0.8", "15", "0.3", area, "yes") for name, area in zip(CLASSES, ("7", "0"), strict=True)]
    assert texts == [[f"fold {fold} seed 0", *values] for fold in range(2) for values in expected]


def test_there_is_no_section_without_post_processing(exclusive: Finished) -> None:
    assert grids(exclusive) == []
