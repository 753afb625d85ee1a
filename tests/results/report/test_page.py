"""The page: complete, escaped, readable by anyone, alone."""

import base64

from results.report.page import (
    Code,
    Collapsible,
    Column,
    FigureBlock,
    Grid,
    GridCell,
    Items,
    ReportPage,
    Section,
    Text,
    data_uri,
    render,
)
from tests.support.page import Page, problems

GRID = Grid(
    caption="Scores",
    columns=[Column(name="arm"), Column(name="mean", number=True)],
    rows=[
        [GridCell("none"), GridCell("0.500", 0.5)],
        [GridCell("two_step"), GridCell("0.700", 0.7, strong=True)],
        [GridCell("x"), GridCell("")],
    ],
    sorts=True,
    filters=True,
)
BLOCKS = (
    Text(text="A paragraph"),
    Items(items=["first", "second"]),
    Code(label="Commands", text="study run"),
    FigureBlock(data=data_uri("<svg/>"), alt="A chart", caption="What it shows", wide=True),
    GRID,
    Collapsible(title="More", blocks=[Text(text="inside")]),
)


def page(*blocks: object, **given: object) -> Page:
    parts = {"title": "Study s", "question": "Which?", "answer": ["This one.", "Surely."], "footer": "today", **given}
    section = Section(id="part", title="Part", blocks=blocks or BLOCKS)  # type: ignore[arg-type]
    return Page(render(ReportPage(sections=[section], **parts)))  # type: ignore[arg-type]


def test_a_page_with_every_kind_of_block_stands_alone_and_can_be_read_by_anyone() -> None:
    assert problems(page(missing=["half of it"])) == []


def test_the_checker_finds_what_a_page_must_not_have() -> None:
    broken = '<h1></h1><h3></h3><img src="http://x/y"><table><tr><th></th></tr></table><script src="a.js"></script>'
    found = " ".join(problems(Page(broken)))
    for fault in (
        "skips",
        "without alt",
        "without caption",
        "without scope",
        "img src http",
        "from elsewhere",
        "no main",
    ):
        assert fault in found


def test_the_page_forbids_the_browser_every_request() -> None:
    policy = page().all("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"] or ""
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_text_from_a_study_cannot_become_markup() -> None:
    bad = "</script><b onclick='x'>"
    shown = page(Text(text=bad), Code(label=bad, text=bad), Items(items=[bad]), title=bad, missing=[bad])
    assert not shown.all("b")
    assert shown.text("part").count(bad) == 4


def test_the_answer_comes_before_what_is_missing_and_that_before_the_sections() -> None:
    names = [e.attributes["id"] for e in page(missing=["half"]).all("section")]
    assert names == ["answer", "missing", "part"]


def test_a_complete_study_has_no_section_on_what_is_missing() -> None:
    assert [e.attributes["id"] for e in page().all("section")] == ["answer", "part"]


def test_numbers_carry_the_value_they_are_sorted_by_and_empty_ones_none() -> None:
    cells = page(GRID).all("td", **{"class": "number"})
    assert [cell.attributes.get("data-value") for cell in cells] == ["0.5", "0.7", None]


def test_the_first_column_names_its_row() -> None:
    assert [" ".join(e.text.split()) for e in page(GRID).all("th", scope="row")] == ["none", "two_step", "x"]


def test_a_table_without_scripts_shows_every_row_and_nothing_to_press() -> None:
    shown = page(GRID)
    assert len(shown.all("tr")) == 4
    assert not shown.all("button") + shown.all("input")


def test_a_picture_holds_its_own_content() -> None:
    assert base64.b64decode(data_uri("<svg/>").partition(",")[2]) == b"<svg/>"
    assert data_uri(b"\x89PNG").startswith("data:image/png;base64,")
