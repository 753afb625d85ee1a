"""The page: complete, escaped, accessible, self-contained."""

import base64
import re

import pytest

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
    text_columns,
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


def page(*blocks: object, **changes: object) -> Page:
    parts = {"title": "Study s", "question": "Which?", "answer": ["This one.", "Surely."], "footer": "today", **changes}
    section = Section(id="part", title="Part", blocks=blocks or BLOCKS)  # type: ignore[arg-type]
    return Page(render(ReportPage(sections=[section], **parts)))  # type: ignore[arg-type]


def test_a_page_with_every_kind_of_block_is_self_contained_and_accessible() -> None:
    assert problems(page(missing=["half of it"])) == []


def test_the_checker_reports_forbidden_elements() -> None:
    broken = '<h1></h1><h3></h3><img src="http://x/y"><table><tr><th></th></tr></table><script src="a.js"></script>'
    reported = " ".join(problems(Page(broken)))
    for fault in (
        "skips",
        "without alt",
        "without caption",
        "without scope",
        "img src http",
        "from elsewhere",
        "no main",
    ):
        assert fault in reported


def test_the_page_forbids_all_requests_of_the_browser() -> None:
    policy = page().all("meta", **{"http-equiv": "Content-Security-Policy"})[0].attributes["content"] or ""
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_text_of_a_study_is_escaped() -> None:
    markup = "</script><b onclick='x'>"
    rendered = page(
        Text(text=markup), Code(label=markup, text=markup), Items(items=[markup]), title=markup, missing=[markup]
    )
    assert not rendered.all("b")
    assert rendered.text("part").count(markup) == 4


def test_the_summary_is_before_missing_results_and_the_sections() -> None:
    names = [e.attributes["id"] for e in page(missing=["half"]).all("section")]
    assert names == ["answer", "missing", "part"]


def test_a_complete_study_has_no_section_on_missing_results() -> None:
    assert [e.attributes["id"] for e in page().all("section")] == ["answer", "part"]


def test_numbers_have_a_sort_value_and_empty_cells_have_none() -> None:
    cells = page(GRID).all("td", **{"class": "number"})
    assert [cell.attributes.get("data-value") for cell in cells] == ["0.5", "0.7", None]


def test_the_first_column_is_the_row_header() -> None:
    assert [" ".join(e.text.split()) for e in page(GRID).all("th", scope="row")] == ["none", "two_step", "x"]


def test_without_scripts_a_table_shows_every_row_and_no_buttons() -> None:
    rendered = page(GRID)
    assert len(rendered.all("tr")) == 4
    assert not rendered.all("button") + rendered.all("input")


def test_a_figure_is_embedded() -> None:
    assert base64.b64decode(data_uri("<svg/>").partition(",")[2]) == b"<svg/>"
    assert data_uri(b"\x89PNG").startswith("data:image/png;base64,")


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours after WCAG 2.1."""
    luminances = []
    for colour in (first, second):
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    high, low = max(luminances), min(luminances)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(scheme: int) -> None:
    style = page().all("style")[0].text
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]+)", blocks[scheme]))
    backgrounds = [colours[name] for name in ("page", "wash", "answer", "missing")]
    for name in ("ink", "faint", "link"):
        assert min(contrast(colours[name], behind) for behind in backgrounds) >= 4.5, name
    for name in ("accent", "edge"):  # of outlines and edges
        assert min(contrast(colours[name], behind) for behind in backgrounds) >= 3.0, name


def test_narrow_tables_and_figures_share_rows_and_wide_ones_do_not() -> None:
    def grid(text: str) -> Grid:
        columns = text_columns("setting", "distribution", "values")
        return Grid(caption="c", columns=columns, rows=[[GridCell(text)] * 3])

    blocks = [
        grid("0.5"), grid("0.805 (0.353 to 0.920)"), FigureBlock(data="data:image/png;base64,", alt="a", caption="c"),
        FigureBlock(data="data:image/png;base64,", alt="a", caption="c", wide=True),
    ]  # fmt: skip
    shares = [e for e in page(*blocks).elements if e.attributes.get("class") == "shares"]
    assert [element.tag for element in shares] == ["div", "figure"]
