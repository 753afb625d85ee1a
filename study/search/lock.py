"""A lock for searches: two drivers would propose trials in one journal without knowing those of each other."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from study.errors import ConfigError, Problem
from study.planning.digest import digest
from study.planning.graph import Plan
from study.store.lease import LeaseHeld
from study.store.store import Store


@contextmanager
def search_lock(plan: Plan, store: Store) -> Iterator[None]:
    """Lock the unfinished search of a study. Raises `ConfigError` if another driver has locked it."""
    with ExitStack() as stack:
        if plan.graph.is_searching:
            try:
                stack.enter_context(store.lease(digest(["search", plan.spec.name])))
            except LeaseHeld as error:
                message = "another driver runs this search; allowed: one at a time; wait for it, or end it first"
                raise ConfigError([Problem(path="search", message=message)], plan.file) from error
        yield
