"""One driver at a time for a search: two would propose into one journal, each without the other's trials."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from study.claims import Claimed, claim
from study.identity import digest
from study.plan import Plan
from study.problems import Problem, Refused
from study.store import Store


@contextmanager
def alone(plan: Plan, store: Store) -> Iterator[None]:
    """Hold the search of a study, where it has one that is not finished. Raises `Refused` where another driver does."""
    with ExitStack() as held:
        if plan.searches is not None and not plan.searches.finished:
            try:
                held.enter_context(claim(store.work(digest(["search", plan.spec.name])), store.mirror))
            except Claimed as error:
                message = "another driver runs this search; allowed: one at a time; wait for it, or end it first"
                raise Refused([Problem(path="search", message=message)], plan.file) from error
        yield
