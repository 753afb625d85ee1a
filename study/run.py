"""Running a study: plan, execute what is left, compare. Running again resumes."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
from study.spec import with_absolute_places
from study.stage import perform
from study.store import Damaged, Store
from study.todo import Todo, set_damaged_aside, todo
from study.train import Context

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a run ended."""

    failures: dict[str, str]
    """Error by digest."""
    skipped: set[str]
    comparisons: "pa.Table"


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
    left = todo(plan, store)
    write_json(folder / PLAN, {"stages": {name: node.recipe.step.stage for name, node in plan.nodes.items()}})
    display = Display(plan, total=len(left.stages), console=console, on_failure=_failure_writer(plan, folder))
    with heartbeat(folder / DRIVER, lambda: display.counts(len(plan.nodes))) as heart:
        queue = _execute(plan, left, store, cache.resolve(), address, display) if left.stages else Queue(())
        comparisons = _conclude(plan, store, failed=bool(queue.failed))
        heart.state = "failed" if queue.failed else "finished"
    return Ended(failures=queue.failed, skipped=queue.skipped, comparisons=comparisons)


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
        with display:
            return execute(
                [_item(plan, digest) for digest in lineage],
                Worker(jobs, surroundings),
                display,
                capacity=capacity,
                cpus=spec.resources.cpus,
                gpus=gpus,
                done=lineage.keys() - set(left.stages),
                may_start=lambda digest: not is_claimed(store.work(digest)),
            )


def _with_ancestors(plan: Plan, stages: Iterable[str]) -> dict[str, None]:
    """Return stages and all they descend from, each once."""
    lineage: dict[str, None] = {}
    for digest in stages:
        at: str | None = digest
        while at is not None and at not in lineage:
            lineage[at] = None
            at = plan.nodes[at].parent
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
    node = plan.nodes[digest]
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
    store.drop_weights((store.finished() & plan.nodes.keys()) - kept - store.planned_by_others(plan.spec.name))
