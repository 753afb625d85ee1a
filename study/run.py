"""Running a study: plan, execute what is left, compare. Running again resumes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from cluster.local_cluster import LocalCluster
from cluster.scheduling.stage_queue import Queue
from results.figures import is_intact_png, learning_curve
from results.text import printable
from study.analysis.tables import best_stages, curve_path, write_outcome
from study.config.document import Document
from study.config.schema import with_absolute_places
from study.errors import Refused
from study.monitoring.display import Display
from study.monitoring.heartbeat import heartbeat
from study.monitoring.plan_summary import write_plan
from study.planning.graph import Plan
from study.planning.pending import set_damaged_aside, todo
from study.search.lock import alone
from study.store.atomic import is_newer, set_folder_aside, signed, write_atomic
from study.store.damage import Damaged
from study.store.documents import signed_spec
from study.store.paths import COMPARISONS, DRIVER, FAILURES, FILES, SPEC
from study.store.references import planned_by_all
from study.store.retry import append_patiently
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

DAMAGED_RUNS = 3
"""How often a run begins again because a file turned out damaged when it was read."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    failures: dict[str, str]
    """Error by digest."""
    skipped: set[str]
    comparisons: "pa.Table"
    fruitless: list[str] = field(default_factory=list)
    """Arms that are not compared, because no candidate of their search came to its end."""


def run(
    plan: Plan, document: Document, *, storage: Path, cache: Path, cluster: str | LocalCluster, console: Console
) -> Ended:
    """Run a study that passed `study.execution.readiness` to its end, on a cluster's address or on this machine."""
    store = Store(storage.resolve())
    with alone(plan, store):
        for _ in range(DAMAGED_RUNS):
            try:
                return _run(plan, document, store, cache=cache, cluster=cluster, console=console)
            except Damaged as error:
                store.set_aside(error)
                _say(console, f"{error.short}; it was set aside, and all of the study is verified")
                for what in set_damaged_aside(plan, store, every_byte=True).values():
                    _say(console, f"{what}; it was set aside too")
        return _run(plan, document, store, cache=cache, cluster=cluster, console=console)


def _run(
    plan: Plan, document: Document, store: Store, *, cache: Path, cluster: str | LocalCluster, console: Console
) -> Ended:
    folder = store.study(plan.spec.name)
    for place in (folder / name for name in FILES):
        if aside := set_folder_aside(place):
            _say(console, f"{place} is a folder; it is now {aside.name}")
    kept = with_absolute_places(document, plan.spec)
    write_atomic(folder / SPEC, signed_spec(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)))
    for what in set_damaged_aside(plan, store).values():
        _say(console, f"{what}; it was set aside and is made again")
    repaired = plan.searches.repair() if plan.searches is not None else None
    if repaired:
        _say(console, repaired)
    write_plan(plan, store)
    left = todo(plan, store)
    display = Display(plan, left=left, console=console, on_failure=_failure_writer(plan, folder))
    with heartbeat(folder / DRIVER, lambda: display.told(len(plan.nodes))) as heart:
        (folder / FAILURES).unlink(missing_ok=True)
        idle = not left.stages and (plan.searches is None or plan.searches.finished)
        if idle:
            queue = Queue()
        else:
            if isinstance(cluster, LocalCluster):
                cluster.begin()  # while Ray and what runs on it are imported
            from study.execution.scheduler import execute_left

            queue = execute_left(plan, left, store, cache.resolve(), cluster, display)
            write_plan(plan, store)
        failures = {name: error for name, error in queue.failed.items() if name in plan.nodes}
        fruitless = plan.searches.fruitless if plan.searches is not None else []
        comparisons = _conclude(plan, store, console, failed=bool(failures))
        heart.state = "failed" if failures or fruitless else "finished"
    skipped = queue.skipped & plan.nodes.keys()
    return Ended(failures=failures, skipped=skipped, comparisons=comparisons, fruitless=fruitless)


def _conclude(plan: Plan, store: Store, console: Console, *, failed: bool) -> "pa.Table":
    """Write the tables and the picture, drop the weights that are not kept, return the comparisons."""
    comparisons = write_outcome(plan, store)
    if not failed:  # what failed is tried again, and may start from any of these
        _drop_weights(plan, store, best_stages(plan, comparisons), console)
    picture, table = curve_path(store, plan.spec.name), store.study(plan.spec.name) / COMPARISONS
    if comparisons.num_rows and not (is_newer(picture, table) and is_intact_png(picture)):
        picture.parent.mkdir(exist_ok=True)
        set_folder_aside(picture)
        learning_curve(comparisons, path=picture)
    return comparisons


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _failure_writer(plan: Plan, folder: Path) -> Callable[[str, str], None]:
    def write(digest: str, error: str) -> None:
        failure = {"digest": digest, "stage": plan.nodes[digest].recipe.step.stage, "error": error}

        def append() -> None:
            with (folder / FAILURES).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(signed(failure)) + "\n")

        append_patiently(folder / FAILURES, append)

    return write


def _drop_weights(plan: Plan, store: Store, best: frozenset[str], console: Console) -> None:
    """Remove the weights that `keep` does not keep, but for stages that other studies share."""
    if plan.spec.keep.weights == "all":
        return
    parents = frozenset(node.parent for node in plan.nodes.values() if node.parent)
    kept = parents | best if plan.spec.keep.weights == "parents+best" else frozenset[str]()
    own = plan.nodes.keys() | plan.candidates.keys() | (plan.searches.tried() if plan.searches is not None else set())
    try:
        shared = planned_by_all(store, but=plan.spec.name)
    except Refused as refused:
        unknown = " and ".join(problem.path for problem in refused.problems)
        _say(console, f"no weights were removed, as {unknown} may need them: its plan is missing or damaged")
        return
    store.drop_weights((store.finished() & own) - kept - shared)
