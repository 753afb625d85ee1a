"""All figures of a study by name, for `study figures` and the Python API."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from results.report.study_figure import Drawn, StudyFigure
from study.analysis.imported.study import is_imported
from study.errors import ConfigError, Problem
from study.report.figures import pathway_figure
from study.report.opened import OpenedStudy, open_study
from study.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study_figures(
    storage: Path, name: str, *, cache: Path, log: bool = False, images: bool = True
) -> "dict[str, Figure]":
    """Return the figures of a study, finished or not, by name, as the report shows them.

    They are drawn in the style in use (`results.figures.figure_style`).

    Args:
        storage: Folder of the store.
        name: Name of the study.
        cache: Folder of the caches of the data.
        log: Whether the axis of labelled images is logarithmic.
        images: Whether to include test images, which are predicted for this.

    Raises:
        ConfigError: The results were imported, so that there is nothing to draw.
    """
    drawn = draw_figures(storage, name, cache=cache, log=log, images=images)
    return {figure.name: figure.figure for figure in drawn if isinstance(figure, StudyFigure)}


def draw_figures(storage: Path, name: str, *, cache: Path, log: bool = False, images: bool = True) -> Iterator[Drawn]:
    """Yield the figures of `study_figures` with their texts, and why others cannot be drawn. Raises as that does."""
    if is_imported(Store(storage).study(name)):
        message = "has imported results, which have no figures; allowed: a study that was run; see `study table`"
        raise ConfigError([Problem(path="", message=message)], name)
    opened = open_study(storage, name, cache=cache, log=log)
    yield from _drawn(opened, cache, images=images)
    yield from _of_search(opened)


def _drawn(opened: OpenedStudy, cache: Path, *, images: bool) -> Iterator[Drawn]:
    if opened.drawer is not None:
        yield from opened.drawer.curves()
        yield from opened.drawer.curves_over_hours()
        yield from opened.drawer.pairs()
        yield from opened.drawer.classes()
    yield from pathway_figure(opened.facts)
    if opened.drawer is not None:
        yield from opened.drawer.more_figures()
        yield from opened.drawer.cases(cache) if images else ()


def _of_search(opened: OpenedStudy) -> Iterator[StudyFigure]:
    if opened.spec is not None and opened.spec.search is not None:
        from study.report.search import figures_of_searches  # imports Optuna

        facts = opened.facts
        for _, drawn in figures_of_searches(facts.store.study(facts.name)):
            yield from drawn
