"""All figures have one style, in exact sizes, which neither leaks nor is changed by what other code has set."""

import re
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from results import figures
from results.figures.style import COLOURS, MM_PER_INCH, STYLES, applied, current, figure_style, line_style, point_style
from tests.results.figures.test_figures import compared
from tests.results.figures.test_kinds import ALL

DRAWS = {name: draw for name, (draw, _) in ALL.items()} | {
    "curve": lambda: figures.curves(compared()),
    "panels": lambda: figures.curves(compared(backbones=2, weights=2)),
}


def drawn(name: str, style: figures.FigureStyle) -> Figure:
    """Draw a figure with its layout computed."""
    with figure_style(style):
        figure = DRAWS[name]()
        with applied():
            FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("name", DRAWS)
def test_drawing_and_writing_a_figure_leaves_no_settings_behind(name: str, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figures.save(DRAWS[name](), tmp_path / "figure.png")
    figures.svg(DRAWS[name]())
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", DRAWS)
def test_a_style_that_other_code_has_set_does_not_change_a_figure(name: str) -> None:
    plain = figures.svg(DRAWS[name]())
    with mpl.style.context("ggplot"), mpl.rc_context({"font.size": 20, "lines.linewidth": 5}):
        assert figures.svg(DRAWS[name]()) == plain


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", DRAWS)
def test_all_text_has_the_size_of_the_style(name: str, style: str) -> None:
    figure = drawn(name, STYLES[style])
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() and text.get_visible()]
    assert {text.get_fontsize() for text in texts} == {STYLES[style].font}


@pytest.mark.parametrize("style", ["paper", "slides"])
@pytest.mark.parametrize("name", DRAWS)
def test_nothing_is_drawn_beyond_the_edges(name: str, style: str) -> None:
    figure = drawn(name, STYLES[style])
    box, size = figure.get_tightbbox(figure.canvas.get_renderer()), figure.get_size_inches()  # type: ignore[attr-defined]
    assert min(box.x0, box.y0) > -0.03
    assert box.x1 < size[0] + 0.03
    assert box.y1 < size[1] + 0.03


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", ["curve", "panels", "roc", "reliability", "training", "classes"])
def test_labels_of_axes_and_legends_do_not_overlap(name: str, style: str) -> None:
    figure = drawn(name, STYLES[style])
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    labels = [label for axes in figure.axes for label in (axes.xaxis.label, axes.yaxis.label) if label.get_text()]
    boxes = [part.get_window_extent(renderer) for part in (*labels, *figure.legends)]
    assert [1 for first, second in combinations(boxes, 2) if first.overlaps(second)] == []


@pytest.mark.parametrize("width", [60.0, 88.0, 180.0])
def test_a_width_in_millimetres_is_exact_in_every_format(width: float, tmp_path: Path) -> None:
    style = figures.FigureStyle(font=7.0, line=1.0, width=width)
    with figure_style(style):
        for suffix in figures.FORMATS:
            figures.save(figures.curves(compared()), tmp_path / f"a{suffix}", dpi=254)
    with Image.open(tmp_path / "a.png") as image:
        assert abs(image.width - width * 10) <= 1  # 254 dots per inch are 10 per millimetre
    points = width / MM_PER_INCH * 72
    (svg_width,) = re.findall(r'<svg [^>]*?width="([\d.]+)pt"', (tmp_path / "a.svg").read_text())
    assert abs(float(svg_width) - points) < 0.01
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", (tmp_path / "a.pdf").read_bytes())
    assert abs(float(box) - points) < 0.01


def test_pdf_files_embed_truetype_fonts_only(tmp_path: Path) -> None:
    figures.save(figures.curves(compared()), tmp_path / "a.pdf")
    content = (tmp_path / "a.pdf").read_bytes()
    assert b"/CIDFontType2" in content
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_svg_files_need_no_font() -> None:
    assert "<text" not in figures.svg(figures.curves(compared()))


def test_series_differ_in_grey_by_line_and_by_marker() -> None:
    styles = [(str(line_style(k)["linestyle"]), point_style(k)["marker"]) for k in range(len(COLOURS))]
    assert len({line for line, _ in styles}) == len({marker for _, marker in styles}) == len(COLOURS)


def test_colours_differ_for_readers_without_red_or_green_receptors() -> None:
    # Linear RGB as seen with protanopia and deuteranopia (Vienot, Brettel and Mollon 1999).
    matrices = (
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    )
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    for matrix in matrices:
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        assert min(np.abs(a - b).max() for a, b in combinations(seen, 2)) > 0.1


def test_the_style_ends_with_its_context() -> None:
    with figure_style(figures.PAPER):
        assert current() is figures.PAPER
    assert current() is figures.REPORT


def names_beside(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_few_curves_are_named_beside_them_and_many_in_a_legend() -> None:
    few, many = figures.curves(compared(pathways=3)), figures.curves(compared(pathways=7))
    assert sorted(names_beside(few.axes[0])) == ["pathway0", "pathway1", "pathway2"]
    assert not few.legends
    assert not names_beside(many.axes[0])
    assert [text.get_text() for text in many.legends[0].get_texts()] == [f"pathway{p}" for p in range(7)]


def test_names_beside_curves_do_not_overlap() -> None:
    figure = drawn("curve", figures.PAPER)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert [1 for a, b in combinations(boxes, 2) if a.overlaps(b)] == []


def test_a_factor_other_than_the_pathway_has_colours_where_there_is_one_pathway() -> None:
    axes = figures.curves(compared(pathways=1, weights=3)).axes[0]
    assert {text.get_text(): text.get_color() for text in axes.texts} == dict(
        zip(("weights0", "weights1", "weights2"), COLOURS, strict=False)
    )
