"""Checks before a run: writable folders and available initial weights."""

from pathlib import Path

from study.config.document import Document
from study.errors import ConfigError, Problem
from study.planning.graph import Plan
from study.planning.pending import pending_stages
from study.planning.pretrained import missing_weights
from study.store.references import refuse_imported
from study.store.store import Store


def preloaded_module(document: Document) -> str | None:
    """Return the module that worker processes preload; None with several workers, which are new for each stage."""
    resources = document.get("resources")
    several = isinstance(resources, dict) and resources.get("workers", 1) != 1
    return None if several else "study.training.preload"


def refuse_unready(plan: Plan, storage: Path, cache: Path) -> None:
    """Raise `ConfigError` if a folder is not writable or published weights are not available."""
    store = Store(storage)
    refuse_imported(store, plan.spec.name)
    problems = missing_weights(plan, pending_stages(plan, store), store)
    for option, folder in (("--storage", storage), ("--cache", cache)):
        unwritable = Store(folder).writing_problem()
        if unwritable:
            problems.append(Problem(path=option, message=unwritable))
    if problems:
        raise ConfigError(problems, plan.file)
