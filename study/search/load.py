"""The plan of a study file: what can be planned now, and the searches that its other arms wait for."""

from collections.abc import Callable
from pathlib import Path

from study.config.document import Document
from study.errors import ConfigError
from study.planning.builder import Planner
from study.planning.checks.search_checks import first_changed, own_parameters
from study.planning.checks.spec_checks import single_image_problems
from study.planning.graph import Plan
from study.planning.load import load_planner
from study.store.store import Store


def load_plan(
    document: Document, *, file: str, cache: Path, storage: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Plan:  # fmt: skip
    """Check a study file completely and plan it. Raises `ConfigError` with every problem found.

    Results of finished searches are read from `storage`; without it, searched arms wait. `meanwhile` is called where
    reading data takes a while and nothing is refused so far, maybe often.
    """
    planner = load_planner(document, file=file, cache=cache, meanwhile=meanwhile)
    plan = planner.build() if planner.plan.spec.search is None else _with_searches(planner, storage or Path())
    problems = list(single_image_problems(plan))
    if problems:
        raise ConfigError(problems, file)
    return plan


def _with_searches(planner: Planner, storage: Path) -> Plan:
    """Plan what does not wait for a search, and what finished searches found."""
    from study.search.arm_search import ArmSearches  # Optuna takes longer to import than all of the rest

    plan = planner.plan
    changed = {number: own_parameters(plan.spec, arm) for number, arm in enumerate(plan.arms)}
    whole = plan.spec.search is not None and plan.spec.search.scope == "study"
    searched = {number: first_changed(plan.arms[number], own) for number, own in changed.items() if own or whole}
    planner.build(searched=searched)
    store = Store(storage)
    for name in (plan.spec.name, plan.spec.search.warm_start if plan.spec.search is not None else None):
        if name is not None:
            store.pull(name)
    plan.searches = ArmSearches(plan, planner, store.study(plan.spec.name))
    plan.searches.conclude()
    return plan
