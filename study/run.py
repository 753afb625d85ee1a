"""Running a study: plan, execute what is left, compare. Running again resumes."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from rich.console import Console

from cluster.connect import Capacity, connected
from cluster.execute import Outcome, Report, execute
from cluster.queue import Item, Queue
from results.figures import learning_curve
from study.claims import Claimed, is_claimed
from study.display import Display
from study.document import Document
from study.files import write_atomic, write_json
from study.heartbeat import heartbeat
from study.job import Job, Surroundings, make_job
from study.layout import DRIVER, FAILURES, PLAN, SPEC
from study.outcome import best_stages, curve_path, write_outcome
from study.plan import Plan, image_epochs
from study.problems import Problem, Refused
from study.search.memory import too_large
from study.spec import with_absolute_places
from study.stage import perform
from study.store import Damaged, Store
from study.todo import Todo, set_damaged_aside, todo
from study.train import Context

if TYPE_CHECKING:
    import pyarrow as pa

    from study.search.driver import Driver


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    failures: dict[str, str]
    """Error by digest."""
    skipped: set[str]
    comparisons: "pa.Table"
    fruitless: list[str] = field(default_factory=list)
    """Arms that are not compared, because no candidate of their search came to its end."""


@dataclass(frozen=True)
class Worker:
    """The work of one process of the cluster, sent there once."""

    jobs: dict[str, Job]
    surroundings: Surroundings

    def __call__(self, digest: str, report: Report) -> Outcome:
        """Perform one stage and say how it ended."""
        job = self.jobs[digest]
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        store = Store(self.surroundings.storage)
        try:
            perform(job, self.surroundings, Context(report=report, device=device))
        except SystemExit:  # how Tune stops a trial: this candidate is pruned, and nothing of it is kept
            shutil.rmtree(store.work(digest), ignore_errors=True)
            raise
        except torch.OutOfMemoryError as error:
            return Outcome(status="failed", detail=too_large(job, self.surroundings, device, error))
        except Claimed:
            return Outcome(status="busy")
        except Damaged as error:
            store.set_aside(error.digest)
            return Outcome(status="redo", detail=str(error), redo=error.digest)
        return Outcome(status="done")


def run(plan: Plan, document: Document, *, storage: Path, cache: Path, address: str | None, console: Console) -> Ended:
    """Bring a study that `study.ready` lets through to its end."""
    store = Store(storage.resolve())
    folder = store.study(plan.spec.name)
    kept = with_absolute_places(document, plan.spec)
    write_atomic(folder / SPEC, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
    for what in set_damaged_aside(plan, store).values():
        console.print(f"{what}; it was set aside and is trained again", highlight=False, soft_wrap=True)
    (folder / FAILURES).unlink(missing_ok=True)
    _write_plan(plan, store)
    left = todo(plan, store)
    display = Display(plan, stages=left.stages, console=console, on_failure=_failure_writer(plan, folder))
    with heartbeat(folder / DRIVER, lambda: display.counts(len(plan.nodes))) as heart:
        idle = not left.stages and (plan.searches is None or plan.searches.finished)
        queue = Queue() if idle else _execute(plan, left, store, cache.resolve(), address, display)
        _write_plan(plan, store)
        failures = {name: error for name, error in queue.failed.items() if name in plan.nodes}
        fruitless = plan.searches.fruitless if plan.searches is not None else []
        comparisons = _conclude(plan, store, failed=bool(failures))
        heart.state = "failed" if failures or fruitless else "finished"
    skipped = queue.skipped & plan.nodes.keys()
    return Ended(failures=failures, skipped=skipped, comparisons=comparisons, fruitless=fruitless)


def _write_plan(plan: Plan, store: Store) -> None:
    told: dict[str, object] = {"stages": {name: node.recipe.step.stage for name, node in plan.nodes.items()}}
    if plan.searches is not None:
        told |= {"after_search": len(plan.after_search), "searches": plan.searches.told()}
    write_json(store.study(plan.spec.name) / PLAN, told)


def _conclude(plan: Plan, store: Store, *, failed: bool) -> "pa.Table":
    """Write the tables and the picture, drop the weights that are not kept, return the comparisons."""
    comparisons = write_outcome(plan, store)
    if not failed:  # what failed is tried again, and may start from any of these
        _drop_weights(plan, store, best_stages(plan, comparisons))
    if comparisons.num_rows:
        picture = curve_path(store, plan.spec.name)
        picture.parent.mkdir(exist_ok=True)
        learning_curve(comparisons, path=picture)
    return comparisons


def _execute(plan: Plan, left: Todo, store: Store, cache: Path, address: str | None, display: Display) -> Queue:
    spec = plan.spec
    surroundings = Surroundings(storage=store.root, cache=cache, cpus=spec.resources.cpus, checkpoint=spec.checkpoint)
    # Finished ancestors go along: one that turns out damaged is trained again.
    lineage = _with_ancestors(plan, left.stages)
    jobs = {digest: make_job(plan, plan.nodes[digest], needs_weights=digest in left.again) for digest in lineage}
    with connected(address) as capacity:
        gpus = _gpus(plan, capacity)
        _refuse_too_small(plan, capacity, gpus, address)
        source = _source(plan, store, surroundings, display)
        with display:
            queue = execute(
                [_item(plan, digest) for digest in lineage],
                Worker(jobs, surroundings),
                display,
                capacity=capacity,
                cpus=spec.resources.cpus,
                gpus=gpus,
                done=lineage.keys() - set(left.stages),
                may_start=lambda digest: not is_claimed(store.work(digest)),
                source=source,
            )
            if source is not None:
                source.draw()
            return queue


def _source(plan: Plan, store: Store, surroundings: Surroundings, display: Display) -> "Driver | None":
    """Return where candidates, and what is compared after a search, come from."""
    if plan.searches is None:
        return None
    from study.search.driver import Driver

    def items(digests: Iterable[str], candidates: bool) -> tuple[list[Item], set[str]]:
        lineage = _with_ancestors(plan, digests)
        finished = {name for name in lineage if store.is_finished(name)}
        usable = {name for name in finished if store.has_weights(name)}
        wanted = set(lineage) - usable if candidates else set(digests)
        display.expect(wanted)
        made = [_late_item(plan, name, surroundings, again=name in finished - usable) for name in lineage]
        return made, set(lineage) - wanted

    def compared() -> Iterable[str]:
        _write_plan(plan, store)
        return todo(plan, store).stages

    return Driver(plan.searches, store, items=items, compared=compared, say=display.line)


def _late_item(plan: Plan, digest: str, surroundings: Surroundings, *, again: bool) -> Item:
    """Return an item that brings its own job; a candidate is not tried twice where it fails."""
    job = make_job(plan, plan.node(digest), needs_weights=again)
    retries = None if digest in plan.nodes else 0
    return replace(_item(plan, digest), work=Worker({digest: job}, surroundings), retries=retries)


def _with_ancestors(plan: Plan, stages: Iterable[str]) -> dict[str, None]:
    """Return stages and all they descend from, each once."""
    lineage: dict[str, None] = {}
    for digest in stages:
        at: str | None = digest
        while at is not None and at not in lineage:
            lineage[at] = None
            at = plan.node(at).parent
    return lineage


def _refuse_too_small(plan: Plan, capacity: Capacity, gpus: float, address: str | None) -> None:
    """Refuse what this machine can never start; a cluster that is joined may grow."""
    wanted = {"cpus": (plan.spec.resources.cpus, capacity.cpus), "gpus": (gpus, capacity.gpus)}
    problems = [
        Problem(
            path=f"resources.{name}",
            message=f"is {asked:g} and this machine has {there:g}; allowed: at most what there is; lower it, or "
            "name a larger cluster with --address",
        )
        for name, (asked, there) in wanted.items()
        if asked > there
    ]
    if problems and address is None:
        raise Refused(problems, plan.file)


def _item(plan: Plan, digest: str) -> Item:
    node = plan.node(digest)
    needs = (node.parent,) if node.parent else ()
    return Item(id=digest, needs=needs, cost=image_epochs(plan, node))


def _gpus(plan: Plan, capacity: Capacity) -> float:
    gpus = plan.spec.resources.gpus
    return min(1.0, capacity.gpus) if gpus == "auto" else float(gpus)


def _failure_writer(plan: Plan, folder: Path) -> Callable[[str, str], None]:
    def write(digest: str, error: str) -> None:
        failure = {"digest": digest, "stage": plan.nodes[digest].recipe.step.stage, "error": error}
        with (folder / FAILURES).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(failure) + "\n")

    return write


def _drop_weights(plan: Plan, store: Store, best: frozenset[str]) -> None:
    """Remove the weights that `keep` does not keep, but for stages that other studies share."""
    if plan.spec.keep.weights == "all":
        return
    parents = frozenset(node.parent for node in plan.nodes.values() if node.parent)
    kept = parents | best if plan.spec.keep.weights == "parents+best" else frozenset[str]()
    own = plan.nodes.keys() | plan.candidates.keys() | (plan.searches.tried() if plan.searches is not None else set())
    store.drop_weights((store.finished() & own) - kept - store.planned_by_all(but=plan.spec.name))
