"""Tables of the trials of a search, their costs and the best ones, read from the journal only."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from results.text import spreadsheet_cell
from study.config.search import MINIMISED
from study.errors import ConfigError, Problem
from study.planning.checks.search_checks import settings_text
from study.search.journal import open_journal
from study.store.documents import read_plan

FORMATS = ("md", "csv", "json")
TrialRow = dict[str, Any]


def search_rows(folder: Path) -> list[TrialRow]:
    """Return a row for each trial of the searches of a study. Raises `ConfigError` if there is no search."""
    journal = open_journal(folder, create=False)
    planned = (read_plan(folder) or {}).get("searches")
    if journal is None or not planned:
        message = "has no search; allowed: a study whose file has `search` and that was run; run it first"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    numbers = {study.study_name: study._study_id for study in journal.get_all_studies()}
    rows: list[TrialRow] = []
    for search in planned:
        if search["study"] in numbers:
            trials = journal.get_all_trials(numbers[search["study"]], deepcopy=False)
            trial_rows = [_row(search, trial) for trial in trials]
            best = best_row(trial_rows, search["metrics"][0])
            rows += [{**row, "best": row is best} for row in trial_rows]
    return rows


def best_row(rows: Iterable[TrialRow], metric: str) -> TrialRow | None:
    """Return the best complete trial by a metric, the first one if tied."""
    sign = 1.0 if metric in MINIMISED else -1.0
    complete = [row for row in rows if row["state"] == "complete"]
    return min(complete, key=lambda row: (sign * row[metric], row["trial"]), default=None)


def _row(search: Mapping[str, Any], trial: FrozenTrial) -> TrialRow:
    attributes = trial.user_attrs
    values = dict(zip(search["metrics"], trial.values or [None] * len(search["metrics"]), strict=False))
    return {
        "search": search["name"],
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "best": False,
        **values,
        "params": trial.params,
        "epochs": trial.last_step,
        "image_epochs": attributes.get("image_epochs"),
        "seconds": attributes.get("seconds"),
        "reason": attributes.get("reason", ""),
        "digest": attributes.get("digest", ""),
    }


def search_table(folder: Path, format_: str) -> str:
    """Return the trials of all searches as text. Raises `ConfigError` for an unknown format."""
    if format_ not in FORMATS:
        message = f"is {format_} with --search; allowed: {', '.join(FORMATS)}; choose one of these"
        raise ConfigError([Problem(path="--format", message=message)], folder.name)
    rows = search_rows(folder)
    if format_ == "json":
        return json.dumps(rows, indent=1)
    if format_ == "csv":
        return _csv(rows)
    return "\n".join(_markdown(rows))


def flat_rows(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows with each searched setting as a column of its own."""
    return [{name: value for name, value in row.items() if name != "params"} | row["params"] for row in rows]


def _csv(rows: Sequence[TrialRow]) -> str:
    flat = flat_rows(rows)
    names = list(dict.fromkeys(name for row in flat for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: spreadsheet_cell(value) for name, value in row.items()} for row in flat)
    return stream.getvalue().rstrip("\n")


def _markdown(rows: Sequence[TrialRow]) -> Iterator[str]:
    searches = list(dict.fromkeys(row["search"] for row in rows))
    yield "| search | trials | complete | pruned | failed | image-epochs | best | settings |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in searches:
        trials = [row for row in rows if row["search"] == name]
        states = [sum(row["state"] == state for row in trials) for state in ("complete", "pruned", "fail")]
        spent = sum(row["image_epochs"] or 0 for row in trials)
        best = next((row for row in trials if row["best"]), None)
        value, settings = (values_text(best), settings_text(best["params"])) if best else ("none", "")
        yield f"| {name} | {sum(states)} | {' | '.join(map(str, states))} | {spent:,} | {value} | {settings} |"
    for name in searches:
        yield f"\n{name}\n"
        yield "| trial | state | value | epochs | seconds | settings | reason |"
        yield "| --- | --- | --- | --- | --- | --- | --- |"
        for row in (row for row in rows if row["search"] == name):
            state = f"**{row['state']}**" if row["best"] else row["state"]
            cells = [
                state,
                values_text(row),
                _number(row["epochs"]),
                _number(row["seconds"]),
                settings_text(row["params"]),
            ]
            yield f"| {row['trial']} | {' | '.join(cells)} | {row['reason'].replace('|', '/')} |"


def values_text(row: TrialRow) -> str:
    """Return the metric values of a trial as text."""
    values = [value for name, value in row.items() if name.startswith("val/") or name in ("parameters", "seconds")]
    metrics = [name for name in row if name.startswith("val/") or name == "parameters"]
    shown = [row[name] for name in metrics] or values[:1]
    return ", ".join(_number(value) for value in shown)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
