"""One driver at a time for a search: two would propose into one journal, each without the other's trials."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from study.errors import ConfigError, Problem
from study.planning.digest import digest
from study.planning.graph import Plan
from study.store.lease import LeaseHeld, lease
from study.store.store import Store


@contextmanager
def alone(plan: Plan, store: Store) -> Iterator[None]:
    """Hold the unfinished search of a study. Raises `ConfigError` where another driver holds it."""
    with ExitStack() as held:
        if plan.searches is not None and not plan.searches.finished:
            try:
                held.enter_context(lease(store.work(digest(["search", plan.spec.name])), store.mirror))
            except LeaseHeld as error:
                message = "another driver runs this search; allowed: one at a time; wait for it, or end it first"
                raise ConfigError([Problem(path="search", message=message)], plan.file) from error
        yield
