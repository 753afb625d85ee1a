"""The report's part on a search, of a study that really searched."""

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
def ran(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """One search over two pathways on a grid of three rates, one of which diverges; with its pictures."""
    storage = tmp_path_factory.mktemp("ran")
    searches, store = run_here(DOCUMENT, storage, cache), Store(storage)
    (store.study("searched") / SPEC).write_text(yaml.safe_dump(DOCUMENT))
    draw(searches.all[0].trials.study, ["val/mean_iou"], store.study("searched") / "search", "all arms")
    return searches.plan, store


def spec() -> StudySpec:
    found, faults = parse(DOCUMENT)
    assert found is not None, faults
    return found


def blocks(ran: tuple[Plan, Store]) -> list[object]:
    search = spec().search
    assert search is not None
    return list(search_blocks(ran[1].study("searched"), spec(), search))


def grid(ran: tuple[Plan, Store], caption: str) -> list[list[str]]:
    (found,) = [one for one in blocks(ran) if isinstance(one, Grid) and one.caption.startswith(caption)]
    return [[entry.text for entry in row] for row in found.rows]


def test_how_and_what_was_searched_is_told(ran: tuple[Plan, Store]) -> None:
    first = blocks(ran)[0]
    assert isinstance(first, Text)
    assert (
        "all arms together, 6 trials a search with the sampler grid, scored by validation mean IoU (maximised)"
        in first.text
    )
    assert grid(ran, "Search space") == [["target.optimizer.lr", "choices", "0.001, 0.01, 1.0e+30"]]


def test_the_cost_and_states_of_each_search_are_counted(ran: tuple[Plan, Store]) -> None:
    ((name, trials, complete, pruned, failed, epochs, _),) = grid(ran, "Cost of each search")
    assert (name, trials, complete, pruned, failed) == ("all arms", "6 of 6", "4", "0", "2")
    assert int(epochs.replace(",", "")) > 0


def test_the_best_settings_are_those_each_arm_is_compared_with(ran: tuple[Plan, Store]) -> None:
    plan, _ = ran
    found = {row[0]: row[2] for row in grid(ran, "Best settings")}
    used = {
        plan.arms[one.arm].factors["pathway"]: plan.nodes[one.chain[-1]].step.settings.optimizer.lr
        for one in plan.replicates
    }
    assert found == {arm: f"target.optimizer.lr {rate:.4g}" for arm, rate in used.items()}


def test_reasons_of_failed_trials_are_told_once_each(ran: tuple[Plan, Store]) -> None:
    (folded,) = [one for one in blocks(ran) if isinstance(one, Collapsible) and one.title == "Why 2 trials failed"]
    assert re.search(r"'\d times: Diverged: the training loss is", repr(folded))


def test_pictures_of_the_search_are_shown_with_words(ran: tuple[Plan, Store]) -> None:
    (folded,) = [one for one in blocks(ran) if isinstance(one, Collapsible) and one.title.startswith("History")]
    pictures = [one for one in folded.blocks if isinstance(one, FigureBlock)]
    assert len(pictures) == 3
    assert all(one.alt.endswith("4 complete trials of all arms.") for one in pictures)


def test_the_section_is_a_sound_part_of_a_page(ran: tuple[Plan, Store]) -> None:
    sections = list(_search_section(facts_of(*ran), spec()))
    assert [one.id for one in sections] == ["search"]
    answer = Section(id="results", title="Results", blocks=[])
    page = Page(render(ReportPage(title="x", question="?", answer=["!"], sections=[answer, *sections], footer="now")))
    assert problems(page) == []


def test_a_search_that_has_not_begun_is_said(cache: Path, tmp_path: Path) -> None:
    plan = planned(DOCUMENT, tmp_path, cache)
    (section,) = _search_section(facts_of(plan, Store(tmp_path)), spec())
    assert section.blocks[-1] == Text(text="No trial has run yet.")
