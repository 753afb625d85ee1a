"""Retention of the weights of a finished study."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from study.errors import ConfigError
from study.planning.graph import Plan
from study.store.references import planned_by_all
from study.store.store import Store

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearches


def drop_weights(
    plan: Plan, store: Store, best: frozenset[str], say: Callable[[str], None], searches: "ArmSearches | None" = None
) -> None:
    """Remove the weights that `keep` does not select, except for stages of other studies."""
    if plan.spec.keep.weights == "all":
        return
    parents = frozenset(digest for node in plan.nodes.values() for digest in node.needs)
    kept = parents | best if plan.spec.keep.weights == "parents+best" else frozenset[str]()
    stages = (
        plan.nodes.keys() | plan.candidates.keys() | (searches.candidate_stages() if searches is not None else set())
    )
    try:
        shared = planned_by_all(store, exclude=plan.spec.name)
    except ConfigError as error:
        unreadable = " and ".join(problem.path for problem in error.problems)
        say(f"no weights were removed, as {unreadable} may need them: its plan is missing or damaged")
        return
    store.drop_weights((store.finished() & stages) - kept - shared)
