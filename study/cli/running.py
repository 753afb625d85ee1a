"""Run a study file and print how it ended: `study run`, `study resume` and `study demo`."""

from pathlib import Path

import typer

from study.cli.console import say
from study.config.document import Document


def run_document(document: Document, file: str, storage: Path, cache: Path, address: str | None) -> None:
    """Run a study and end the command with status 0, or 1 if stages failed."""
    from rich.console import Console

    from study.monitoring.reporter import Reporter

    reporter = Reporter(Console(soft_wrap=True))
    with reporter.watching():
        # A file that is refused at once needs no such line; the imports may take seconds.
        reporter.begin(f"reading {file} and its data", at_once=False)

        from study.cli.ending import outcome_lines
        from study.run import run_study

        outcome = run_study(document, file=file, storage=storage, cache=cache, address=address, reporter=reporter)
    for line in outcome_lines(outcome, storage):
        say(line)
    raise typer.Exit(0 if outcome.is_complete else 1)
