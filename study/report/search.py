"""Section of the report on a hyperparameter search: space, cost and best settings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from optuna.trial import TrialState

from results.report.page import (
    Block,
    Collapsible,
    Grid,
    GridCell,
    Items,
    Text,
    number_columns,
    text_columns,
)
from results.report.study_figure import StudyFigure
from results.schema import metric_name
from study.config.schema import StudySpec
from study.config.search import MINIMISED, Search
from study.errors import ConfigError
from study.monitoring.units import count, duration, percent
from study.planning.arms import FIXED_FACTORS, text_of
from study.planning.checks.search_checks import settings_text
from study.search.plots import file_stem, search_figures, searches_of
from study.search.table import TrialRow, best_row, search_rows, values_text
from study.store.atomic import AlteredFileError

MAX_SEARCHES = 12
"""Maximum number of searches with figures on the page; `study figures` and the storage have those of all."""
FIGURE_CAPTIONS = {
    "history": "Value of each trial in order, and the best value so far.",
    "importance": "Importance of each setting for a trial to be among the best (PED-ANOVA).",
    "parallel": "Settings of the complete trials, one line each, coloured by value.",
    "front": "Complete trials by all metrics; the Pareto-optimal trials are marked.",
}


def search_blocks(folder: Path, spec: StudySpec, search: Search) -> Iterator[Block]:
    """Yield the space, the cost of each search, the best settings by arm, reasons of failures, and figures."""
    yield Text(text=_method_text(search))
    yield _space(search)
    try:
        rows = search_rows(folder)
    except AlteredFileError:
        raise
    except ConfigError:
        yield Text(text="No trial has run yet.")
        return
    by_search = {
        name: [row for row in rows if row["search"] == name] for name in dict.fromkeys(row["search"] for row in rows)
    }
    yield _budget(by_search, search.trials)
    yield _best(by_search, (*FIXED_FACTORS, *spec.compare.factors), search.metrics)
    reasons = Counter(row["reason"] or "no reason recorded" for row in rows if row["state"] == "fail")
    if reasons:
        items = [f"{times:,} times: {reason}" for reason, times in reasons.most_common()]
        yield Collapsible(title=f"Why {sum(reasons.values()):,} trials failed", blocks=[Items(items=items)])
    for name, drawn in islice(figures_of_searches(folder), MAX_SEARCHES):
        yield Collapsible(title=f"History and importance: {name}", blocks=[figure.block() for figure in drawn])


def _method_text(search: Search) -> str:
    scope = "each arm" if search.scope == "arm" else "all arms together"
    images = (
        "on each fold's own training images, for that fold alone"
        if search.nested
        else f"on {percent(search.reserve)} of the target's patients, who are in no test set"
    )
    metrics = ", ".join(
        f"{metric_name(metric)} ({'minimised' if metric in MINIMISED else 'maximised'})" for metric in search.metrics
    )
    pruner = search.prune.model_dump(exclude_none=True) if search.prune else {}
    pruning = (
        f" Unpromising trials were stopped early by {text_of(next(iter(pruner)).replace('_', ' '))}." if pruner else ""
    )
    return (
        f"Settings were searched for {scope}, {search.trials:,} trials a search with the sampler {search.sampler}, "
        f"scored by {metrics} {images}.{pruning} Test images were not used."
    )


def _space(search: Search) -> Grid:
    rows = []
    for path, parameter in search.space.items():
        ((kind, value),) = parameter.model_dump(exclude_none=True, mode="json").items()
        rows.append([GridCell(path), GridCell(kind), GridCell(text_of(value).strip("[]"))])
    columns = text_columns("setting", "distribution", "values")
    return Grid(caption="Search space. Ranges include both ends.", columns=columns, rows=rows)


def _budget(by_search: Mapping[str, Sequence[TrialRow]], trials: int) -> Grid:
    rows = []
    for name, rows_of_search in by_search.items():
        states = Counter(row["state"] for row in rows_of_search)
        seconds = sum(row["seconds"] or 0.0 for row in rows_of_search)
        done = sum(states[state] for state in ("complete", "pruned", "fail"))
        rows.append([
            GridCell(name),
            GridCell(f"{done:,} of {trials:,}", float(done)),
            *(count(states[state]) for state in ("complete", "pruned", "fail")),
            count(sum(row["image_epochs"] or 0 for row in rows_of_search)),
            GridCell(duration(seconds), seconds),
        ])  # fmt: skip
    names = ("trials", "complete", "pruned", "failed", "image-epochs", "time of complete trials")
    caption = "Cost of each search: the last stages of its trials; earlier stages are shared."
    return Grid(caption=caption, columns=[*text_columns("search"), *number_columns(*names)], rows=rows)


def _best(by_search: Mapping[str, Sequence[TrialRow]], factors: Sequence[str], metrics: Sequence[str]) -> Grid:
    """Return the best trial of each arm; in a search over several arms the settings of a trial include the arm."""
    rows = []
    for name, rows_of_search in by_search.items():
        arms: dict[str, list[TrialRow]] = {}
        for row in rows_of_search:
            levels = [str(row["params"][factor]) for factor in factors if factor in row["params"]]
            arms.setdefault(" / ".join(levels) or name, []).append(row)
        for arm, trials in arms.items():
            best = best_row(trials, metrics[0])
            settings = {path: value for path, value in best["params"].items() if path not in factors} if best else {}
            texts = [values_text(best), settings_text(settings)] if best else ["none", "no complete trial"]
            value = best[metrics[0]] if best else None
            rows.append([GridCell(arm), GridCell(texts[0], value), GridCell(texts[1])])
    columns = [*text_columns("arm"), *number_columns(", ".join(map(metric_name, metrics))), *text_columns("settings")]
    return Grid(caption="Best settings of each arm, with which it is compared.", columns=columns, rows=rows)


def figures_of_searches(folder: Path) -> Iterator[tuple[str, list[StudyFigure]]]:
    """Yield the name and the figures of each search with enough complete trials. Raises `AlteredFileError`."""
    for name, study, metrics in searches_of(folder):
        complete = sum(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False))
        drawn = [
            StudyFigure(
                name=f"search_{file_stem(name)}_{kind}",
                figure=figure,
                alt=f"{FIGURE_CAPTIONS[kind]} {complete:,} complete trials of {name}.",
                caption=f"{name}: {FIGURE_CAPTIONS[kind]}",
            )
            for kind, figure in search_figures(study, metrics).items()
        ]
        if drawn:
            yield name, drawn
