"""How notebooks show a study."""

import html
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from study.errors import ConfigError


def study_html(read_status: Callable[[], Mapping[str, Any]], folder: Path) -> str:
    """Return the name, the state and the headline table of a study as HTML.

    Args:
        read_status: Returns the state, as `Study.status`.
        folder: The folder of the study.
    """
    from results.tables.render import render
    from study.analysis.shown_table import TableOptions, read_table

    try:
        status = read_status()
    except ConfigError as error:
        status = {"state": str(error)}
    parts = [f"<strong>{html.escape(folder.name)}</strong>: {html.escape(str(status['state']))}"]
    stages = status.get("stages")
    if stages:
        parts.append(f", {stages['finished']} of {stages['total']} stages finished")
        parts += [f", {stages[name]} {name}" for name in ("running", "failed") if stages[name]]
    try:
        table = render(read_table(folder, TableOptions()), "html")
    except ConfigError as error:
        table = f"<p>{html.escape(str(error))}</p>"
    return f"<div><p>{''.join(parts)}</p>{table}</div>"
