"""What a run needs beside a sound plan: places to write, initial weights to read."""

from pathlib import Path

from study.config.document import Document
from study.errors import ConfigError, Problem
from study.planning.graph import Plan
from study.planning.pending import pending_stages
from study.planning.pretrained import missing_weights
from study.store.store import Store


def preloaded_module(document: Document) -> str | None:
    """Return the module that processes import before they get work; those of Ray Train are new ones for each stage."""
    resources = document.get("resources")
    several = isinstance(resources, dict) and resources.get("workers", 1) != 1
    return None if several else "study.training.preload"


def refuse_unready(plan: Plan, storage: Path, cache: Path) -> None:
    """Raise `ConfigError` where a folder cannot be written, or published weights are neither cached nor to be had."""
    store = Store(storage)
    lacking = missing_weights(plan, pending_stages(plan, store), store)
    problems = [Problem(path="compare.initial_weights", message=line) for line in lacking]
    for option, folder in (("--storage", storage), ("--cache", cache)):
        unwritable = Store(folder).writable_problem()
        if unwritable:
            problems.append(Problem(path=option, message=unwritable))
    if problems:
        raise ConfigError(problems, plan.file)
