"""The part of a report that tells of a search: what was searched, at what cost, what came of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from results.report.page import Block, Column, Entry, Folded, Grid, Items, Picture, Text, embedded
from study.config.schema import StudySpec
from study.config.search import MINIMISED, Search
from study.errors import ConfigError
from study.monitoring.units import count, duration, percent
from study.planning.arms import FIXED_FACTORS, text_of
from study.planning.checks.search_checks import settings_text
from study.search.plots import place_of
from study.search.table import Row, best_row, search_rows, values_text
from study.store.atomic import AlteredFileError

MOST_SEARCHES = 12
"""Whose pictures the page holds; those of all lie in the storage."""
PICTURES = {
    "history": "The value of every trial in the order they were made, and the best so far.",
    "importance": "How much each setting decides whether a trial is among the best (PED-ANOVA).",
    "parallel": "The settings of every complete trial, a line each, coloured by its value.",
    "front": "Every complete trial by all metrics; marked are those that no other beats in all of them.",
}


def search_blocks(folder: Path, spec: StudySpec, search: Search) -> Iterator[Block]:
    """Yield the space, what each search cost, the best settings by arm, why trials failed, pictures."""
    yield Text(text=_how(search))
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
    reasons = Counter(row["reason"] or "no reason was told" for row in rows if row["state"] == "fail")
    if reasons:
        items = [f"{times:,} times: {reason}" for reason, times in reasons.most_common()]
        yield Folded(title=f"Why {sum(reasons.values()):,} trials failed", blocks=[Items(items=items)])
    for name, own in list(by_search.items())[:MOST_SEARCHES]:
        shown = list(_pictures(folder, name, own))
        if shown:
            yield Folded(title=f"History and importance: {name}", blocks=shown)


def _how(search: Search) -> str:
    whose = "each arm" if search.scope == "arm" else "all arms together"
    where = (
        "on each fold's own training images, for that fold alone"
        if search.nested
        else f"on {percent(search.reserve)} of the target's patients, who test in no fold"
    )
    wanted = ", ".join(f"{metric} ({'low' if metric in MINIMISED else 'high'})" for metric in search.metrics)
    pruned = search.prune.model_dump(exclude_none=True) if search.prune else {}
    ended = (
        f" Hopeless candidates were ended early by {text_of(next(iter(pruned)).replace('_', ' '))}." if pruned else ""
    )
    return (
        f"Settings were searched for {whose}, {search.trials:,} trials a search with the sampler {search.sampler}, "
        f"judged by {wanted} {where}.{ended} No test image decided anything."
    )


def _space(search: Search) -> Grid:
    rows = []
    for path, parameter in search.space.items():
        ((kind, value),) = parameter.model_dump(exclude_none=True, mode="json").items()
        rows.append([Entry(path), Entry(kind), Entry(text_of(value).strip("[]"))])
    columns = [Column(name="setting"), Column(name="drawn as"), Column(name="from")]
    return Grid(caption="What was searched. Ends of ranges are included.", columns=columns, rows=rows)


def _budget(by_search: Mapping[str, Sequence[Row]], trials: int) -> Grid:
    rows = []
    for name, own in by_search.items():
        states = Counter(row["state"] for row in own)
        seconds = sum(row["seconds"] or 0.0 for row in own)
        done = sum(states[state] for state in ("complete", "pruned", "fail"))
        rows.append([
            Entry(name),
            Entry(f"{done:,} of {trials:,}", float(done)),
            *(count(states[state]) for state in ("complete", "pruned", "fail")),
            count(sum(row["image_epochs"] or 0 for row in own)),
            Entry(duration(seconds), seconds),
        ])  # fmt: skip
    names = ("trials", "complete", "pruned", "failed", "image-epochs", "time of complete ones")
    caption = "What each search cost: the last stages of its candidates; the stages before them are shared."
    return Grid(
        caption=caption, columns=[Column(name="search"), *(Column(name=n, number=True) for n in names)], rows=rows
    )


def _best(by_search: Mapping[str, Sequence[Row]], factors: Sequence[str], metrics: Sequence[str]) -> Grid:
    """Return the best trial of each arm; one search over several arms tells the arm among a trial's settings."""
    rows = []
    for name, own in by_search.items():
        arms: dict[str, list[Row]] = {}
        for row in own:
            named = [str(row["params"][factor]) for factor in factors if factor in row["params"]]
            arms.setdefault(" / ".join(named) or name, []).append(row)
        for arm, tried in arms.items():
            best = best_row(tried, metrics[0])
            settings = {path: value for path, value in best["params"].items() if path not in factors} if best else {}
            found = [values_text(best), settings_text(settings)] if best else ["none", "no candidate came to its end"]
            value = best[metrics[0]] if best else None
            rows.append([Entry(arm), Entry(found[0], value), Entry(found[1])])
    columns = [Column(name="arm"), Column(name=", ".join(metrics), number=True), Column(name="settings")]
    return Grid(caption="The best settings of each arm, with which it is compared.", columns=columns, rows=rows)


def _pictures(folder: Path, name: str, rows: Sequence[Row]) -> Iterator[Block]:
    complete = sum(row["state"] == "complete" for row in rows)
    for kind, caption in PICTURES.items():
        place = place_of(folder / "search", name, kind)
        if place.is_file():
            alt = f"{caption} {complete:,} complete trials of {name}."
            yield Picture(data=embedded(place.read_bytes()), alt=alt, caption=f"{name}: {caption}")
