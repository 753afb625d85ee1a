"""Section of the report on a hyperparameter search: space, cost and best settings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from results.report.page import Block, Collapsible, Column, Entry, FigureBlock, Grid, Items, Text, data_uri
from study.config.schema import StudySpec
from study.config.search import MINIMISED, Search
from study.errors import ConfigError
from study.monitoring.units import count, duration, percent
from study.planning.arms import FIXED_FACTORS, text_of
from study.planning.checks.search_checks import settings_text
from study.search.plots import plot_path
from study.search.table import TrialRow, best_row, search_rows, values_text
from study.store.atomic import AlteredFileError

MAX_SEARCHES = 12
"""Maximum number of searches with figures on the page; the storage has the figures of all searches."""
FIGURE_CAPTIONS = {
    "history": "The value of every trial in the order they were made, and the best so far.",
    "importance": "How much each setting decides whether a trial is among the best (PED-ANOVA).",
    "parallel": "The settings of every complete trial, a line each, coloured by its value.",
    "front": "Every complete trial by all metrics; marked are those that no other beats in all of them.",
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
        yield Text(text="No candidate was tried yet.")
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
    for name, trials in list(by_search.items())[:MAX_SEARCHES]:
        figures = list(_figures(folder, name, trials))
        if figures:
            yield Collapsible(title=f"History and importance: {name}", blocks=figures)


def _method_text(search: Search) -> str:
    scope = "each arm" if search.scope == "arm" else "all arms together"
    images = (
        "on each fold's own training images, for that fold alone"
        if search.nested
        else f"on {percent(search.reserve)} of the target's patients, who test in no fold"
    )
    metrics = ", ".join(f"{metric} ({'low' if metric in MINIMISED else 'high'})" for metric in search.metrics)
    pruner = search.prune.model_dump(exclude_none=True) if search.prune else {}
    pruning = (
        f" Hopeless candidates were ended early by {text_of(next(iter(pruner)).replace('_', ' '))}." if pruner else ""
    )
    return (
        f"Settings were searched for {scope}, {search.trials:,} trials a search with the sampler {search.sampler}, "
        f"judged by {metrics} {images}.{pruning} No test image decided anything."
    )


def _space(search: Search) -> Grid:
    rows = []
    for path, parameter in search.space.items():
        ((kind, value),) = parameter.model_dump(exclude_none=True, mode="json").items()
        rows.append([Entry(path), Entry(kind), Entry(text_of(value).strip("[]"))])
    columns = [Column(name="setting"), Column(name="drawn as"), Column(name="from")]
    return Grid(caption="What was searched. Ends of ranges are included.", columns=columns, rows=rows)


def _budget(by_search: Mapping[str, Sequence[TrialRow]], trials: int) -> Grid:
    rows = []
    for name, rows_of_search in by_search.items():
        states = Counter(row["state"] for row in rows_of_search)
        seconds = sum(row["seconds"] or 0.0 for row in rows_of_search)
        done = sum(states[state] for state in ("complete", "pruned", "fail"))
        rows.append([
            Entry(name),
            Entry(f"{done:,} of {trials:,}", float(done)),
            *(count(states[state]) for state in ("complete", "pruned", "fail")),
            count(sum(row["image_epochs"] or 0 for row in rows_of_search)),
            Entry(duration(seconds), seconds),
        ])  # fmt: skip
    names = ("trials", "complete", "pruned", "failed", "image-epochs", "time of complete ones")
    caption = "What each search cost: the last stages of its candidates; the stages before them are shared."
    return Grid(
        caption=caption, columns=[Column(name="search"), *(Column(name=n, number=True) for n in names)], rows=rows
    )


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
            texts = [values_text(best), settings_text(settings)] if best else ["none", "no candidate was completed"]
            value = best[metrics[0]] if best else None
            rows.append([Entry(arm), Entry(texts[0], value), Entry(texts[1])])
    columns = [Column(name="arm"), Column(name=", ".join(metrics), number=True), Column(name="settings")]
    return Grid(caption="The best settings of each arm, with which it is compared.", columns=columns, rows=rows)


def _figures(folder: Path, name: str, rows: Sequence[TrialRow]) -> Iterator[Block]:
    complete = sum(row["state"] == "complete" for row in rows)
    for kind, caption in FIGURE_CAPTIONS.items():
        file = plot_path(folder / "search", name, kind)
        if file.is_file():
            alt = f"{caption} {complete:,} complete trials of {name}."
            yield FigureBlock(data=data_uri(file.read_bytes()), alt=alt, caption=f"{name}: {caption}")
