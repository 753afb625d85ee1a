"""All figures of a study by name."""

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from results.figures import PAPER, figure_style
from study.report.page import ReportOptions, write_report
from study.report.study_figures import study_figures
from tests.support.finished import Finished
from tests.support.page import Page

NAMES = ["learning_curve_mean_iou", "learning_curve_dice", "classes", "pathways", "roc", "reliability", "confusion",
         "training", "cases"]  # fmt: skip


@pytest.fixture(scope="module")
def study(exclusive: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The storage of a finished study, and its cache."""
    storage = tmp_path_factory.mktemp("drawn") / "runs"
    shutil.copytree(exclusive.store.root, storage)
    return storage, exclusive.cache


def test_figures_are_those_of_the_report(study: tuple[Path, Path], tmp_path: Path) -> None:
    storage, cache = study
    drawn = study_figures(storage, "tiny", cache=cache)
    assert list(drawn) == NAMES
    assert all(isinstance(figure, Figure) for figure in drawn.values())
    options = ReportOptions(figures=tmp_path / "figures", format="png")
    page = Page(write_report(storage, "tiny", cache=cache, output=tmp_path / "a.html", options=options).read_text())
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == sorted(NAMES)
    assert len(page.all("img")) == len(NAMES)


def test_figures_have_the_style_in_use_and_images_are_optional(study: tuple[Path, Path]) -> None:
    storage, cache = study
    with figure_style(PAPER):
        drawn = study_figures(storage, "tiny", cache=cache, images=False)
    assert list(drawn) == NAMES[:-1]
    assert {round(figure.get_figwidth() * 25.4, 6) for figure in drawn.values()} == {88.0}
