"""The section of the report on a search, from a study that was run."""

import re
from pathlib import Path

import pytest
import yaml

from results.report.page import Collapsible, FigureBlock, Grid, ReportPage, Section, Text, render
from study.config.schema import StudySpec
from study.config.validation import parse
from study.planning.graph import Plan
from study.report.facts import facts_of
from study.report.page import _search_section
from study.report.search import search_blocks
from study.search.plots import draw
from study.store.paths import SPEC
from study.store.store import Store
from tests.support.page import Page, problems
from tests.support.searched import planned, run_here, searched

DOCUMENT = searched(
    {"compare.labelled_fraction": [1.0], "stages.segment.epochs": 1},
    scope="study", sampler="grid", trials=6,
    space={"target.optimizer.lr": {"choices": [1e-3, 1e-2, 1e30]}},
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def searched_study(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """One search over two pathways on a grid of three rates, one of which diverges; with its figures."""
    storage = tmp_path_factory.mktemp("ran")
    searches, store = run_here(DOCUMENT, storage, cache), Store(storage)
    (store.study("searched") / SPEC).write_text(yaml.safe_dump(DOCUMENT))
    draw(searches.all[0].trials.study, ["val/mean_iou"], store.study("searched") / "search", "all arms")
    return searches.plan, store


def spec() -> StudySpec:
    parsed, faults = parse(DOCUMENT)
    assert parsed is not None, faults
    return parsed


def blocks(searched_study: tuple[Plan, Store]) -> list[object]:
    search = spec().search
    assert search is not None
    return list(search_blocks(searched_study[1].study("searched"), spec(), search))


def grid(searched_study: tuple[Plan, Store], caption: str) -> list[list[str]]:
    (block_grid,) = [
        block for block in blocks(searched_study) if isinstance(block, Grid) and block.caption.startswith(caption)
    ]
    return [[entry.text for entry in row] for row in block_grid.rows]


def test_the_method_and_the_space_of_the_search_are_stated(searched_study: tuple[Plan, Store]) -> None:
    first = blocks(searched_study)[0]
    assert isinstance(first, Text)
    assert (
        "all arms together, 6 trials a search with the sampler grid, scored by validation mean IoU (maximised)"
        in first.text
    )
    assert grid(searched_study, "Search space") == [["target.optimizer.lr", "choices", "0.001, 0.01, 1.0e+30"]]


def test_the_cost_and_states_of_each_search_are_counted(searched_study: tuple[Plan, Store]) -> None:
    ((name, trials, complete, pruned, failed, epochs, _),) = grid(searched_study, "Cost of each search")
    assert (name, trials, complete, pruned, failed) == ("all arms", "6 of 6", "4", "0", "2")
    assert int(epochs.replace(",", "")) > 0


def test_the_best_settings_are_those_compared_for_each_arm(searched_study: tuple[Plan, Store]) -> None:
    plan, _ = searched_study
    best_settings = {row[0]: row[2] for row in grid(searched_study, "Best settings")}
    used = {
        plan.arms[replicate.arm].factors["pathway"]: plan.nodes[replicate.chain[-1]].step.settings.optimizer.lr
        for replicate in plan.replicates
    }
    assert best_settings == {arm: f"target.optimizer.lr {rate:.4g}" for arm, rate in used.items()}


def test_reasons_of_failed_trials_are_stated_once_each(searched_study: tuple[Plan, Store]) -> None:
    (folded,) = [
        block
        for block in blocks(searched_study)
        if isinstance(block, Collapsible) and block.title == "Why 2 trials failed"
    ]
    assert re.search(r"'\d times: Diverged: the training loss is", repr(folded))


def test_figures_of_the_search_have_a_text_alternative(searched_study: tuple[Plan, Store]) -> None:
    (folded,) = [
        block
        for block in blocks(searched_study)
        if isinstance(block, Collapsible) and block.title.startswith("History")
    ]
    figures = [block for block in folded.blocks if isinstance(block, FigureBlock)]
    assert len(figures) == 3
    assert all(block.alt.endswith("4 complete trials of all arms.") for block in figures)


def test_the_section_is_a_valid_part_of_a_page(searched_study: tuple[Plan, Store]) -> None:
    sections = list(_search_section(facts_of(*searched_study), spec()))
    assert [section.id for section in sections] == ["search"]
    results_section = Section(id="results", title="Results", blocks=[])
    page = Page(
        render(ReportPage(title="x", question="?", answer=["!"], sections=[results_section, *sections], footer="now"))
    )
    assert problems(page) == []


def test_a_search_that_has_not_started_is_reported(cache: Path, tmp_path: Path) -> None:
    plan = planned(DOCUMENT, tmp_path, cache)
    (section,) = _search_section(facts_of(plan, Store(tmp_path)), spec())
    assert section.blocks[-1] == Text(text="No trial has run yet.")
