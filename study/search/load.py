"""Load a complete plan: all stages that can be planned now, and the searches of the other arms."""

from collections.abc import Callable
from pathlib import Path

from study.config.document import Document
from study.errors import ConfigError
from study.planning.builder import Planner
from study.planning.checks.search_checks import first_changed, parameters_of
from study.planning.checks.spec_checks import single_image_problems
from study.planning.graph import Plan
from study.planning.load import load_planner
from study.store.store import Store


def load_plan(
    document: Document, *, file: str, cache: Path, storage: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Plan:  # fmt: skip
    """Check a study file completely and plan it. Raises `ConfigError` with all problems.

    Args:
        document: the study file.
        file: its path, for messages.
        cache: folder of the data caches.
        storage: where results of finished searches are read; without it, all searched arms wait.
        meanwhile: called (possibly often) if reading data takes long and there are no problems so far.
    """
    planner = load_planner(document, file=file, cache=cache, meanwhile=meanwhile)
    plan = planner.build() if planner.plan.spec.search is None else _with_searches(planner, storage or Path())
    problems = list(single_image_problems(plan))
    if problems:
        raise ConfigError(problems, file)
    return plan


def _with_searches(planner: Planner, storage: Path) -> Plan:
    """Plan all stages that do not depend on unfinished searches."""
    from study.search.arm_search import ArmSearches  # importing Optuna is slow

    plan = planner.plan
    parameters = {number: parameters_of(plan.spec, arm) for number, arm in enumerate(plan.arms)}
    is_joint = plan.spec.search is not None and plan.spec.search.scope == "study"
    searched = {
        number: first_changed(plan.arms[number], searchable)
        for number, searchable in parameters.items()
        if searchable or is_joint
    }
    planner.build(searched=searched)
    store = Store(storage)
    for name in (plan.spec.name, plan.spec.search.warm_start if plan.spec.search is not None else None):
        if name is not None:
            store.pull(name)
    plan.searches = ArmSearches(plan, planner, store.study(plan.spec.name))
    plan.searches.conclude()
    return plan
