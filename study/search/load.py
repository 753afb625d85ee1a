"""Load a complete plan: all stages that can be planned now, and the searches of the other arms."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.config.document import Document, read_document
from study.errors import ConfigError
from study.planning.builder import Planner
from study.planning.checks.search_checks import first_changed, parameters_of
from study.planning.checks.spec_checks import single_image_problems, unlabelled_start_problems
from study.planning.graph import Plan
from study.planning.load import load_planner
from study.store.atomic import AlteredFileError
from study.store.paths import SPEC
from study.store.store import Store

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearches


def load_plan(
    document: Document, *, file: str, cache: Path, storage: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Plan:  # fmt: skip
    """Return the plan of `load_study`, for use without running its searches."""
    return load_study(document, file=file, cache=cache, storage=storage, meanwhile=meanwhile)[0]


def load_study(
    document: Document, *, file: str, cache: Path, storage: Path | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> "tuple[Plan, ArmSearches | None]":  # fmt: skip
    """Check a study file completely and plan it; return the plan and its searches, None without a search.

    Args:
        document: the study file.
        file: its path, for messages.
        cache: folder of the data caches.
        storage: where results of finished searches and the contents of published weights are read; without it, all
            searched arms wait.
        meanwhile: called (possibly often) if reading data takes long and there are no problems so far.

    Raises:
        ConfigError: with all problems.
    """
    planner = load_planner(document, file=file, cache=cache, storage=storage, meanwhile=meanwhile)
    plan, searches = planner.plan, None
    if plan.spec.search is None:
        planner.build()
    else:
        searches = _searches(planner, storage or Path())
        if searches.damage:
            warning = f"search: {searches.damage}; a run keeps the trials before it and searches on from there"
            plan = replace(plan, warnings=(*plan.warnings, warning))
    problems = [*single_image_problems(plan), *unlabelled_start_problems(plan)]
    if problems:
        raise ConfigError(problems, file)
    return plan, searches


def stored_plan(store: Store, name: str, cache: Path) -> tuple[Plan | None, str]:
    """Return the plan of a study in a storage, or None and the reason why its stages cannot be matched to one.

    Args:
        store: The storage.
        name: The study.
        cache: Folder of the data caches.

    Raises:
        AlteredFileError: The journal of its search is damaged.
    """
    file, planned = store.study(name) / SPEC, frozenset(store.planned(name))
    # The package of a tracker may not be installed here.
    document = {key: value for key, value in read_document(file).items() if key != "tracking"}
    try:
        plan, searches = load_study(document, file=str(file), cache=cache, storage=store.root)
    except ConfigError as refused:
        first, *rest = str(refused).splitlines()
        return None, f"{first.removeprefix(f'{file}: ')}" + (f" (and {len(rest)} more)" if rest else "")
    if searches is not None and searches.damage:
        raise AlteredFileError(str(file.parent), searches.damage)
    if planned and planned != plan.nodes.keys():
        return None, "the data or the platform has changed since the study ran"
    return plan, ""


def _searches(planner: Planner, storage: Path) -> "ArmSearches":
    """Plan all stages that do not depend on unfinished searches, and return the searches."""
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
    searches = ArmSearches(plan, planner, store.study(plan.spec.name))
    searches.conclude()
    return searches
