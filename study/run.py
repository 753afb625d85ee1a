"""Run a study from its file to its results. Running it again resumes it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.addresses import head_address
from cluster.local_cluster import LocalCluster
from cluster.scheduling.stage_queue import StageQueue
from study.analysis.tables import best_stages, write_outcome
from study.config.document import Document
from study.errors import ConfigError, Problem
from study.execution.readiness import preloaded_module, refuse_unready
from study.execution.retention import drop_weights
from study.execution.study_folder import draw_learning_curve, forget_failures, write_study
from study.monitoring.display import Display
from study.monitoring.heartbeat import heartbeat
from study.monitoring.progress import StudyProgress
from study.monitoring.reporter import Reporter
from study.planning.graph import Plan
from study.planning.pending import PendingStages, pending_stages, set_damaged_aside
from study.planning.pretrained import changed_weights
from study.search.load import load_study
from study.search.lock import search_lock
from study.store.damage import DamagedStageError
from study.store.paths import DRIVER
from study.store.pretrained import record_contents
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from study.search.arm_search import ArmSearches

ATTEMPTS = 4
"""Maximum number of attempts; an attempt fails if a damaged file is read."""


@dataclass(frozen=True, kw_only=True)
class StudyOutcome:
    """The result of running a study."""

    plan: Plan
    comparisons: "pa.Table"
    failures: dict[str, str] = field(default_factory=dict)
    """Error message by digest of the stage."""
    skipped: frozenset[str] = frozenset()
    """Digests of stages whose ancestors failed."""
    arms_without_result: tuple[str, ...] = ()
    """Arms that are not compared because no candidate of their search was completed."""

    @property
    def is_complete(self) -> bool:
        """Return whether every arm has its results."""
        return not self.failures and not self.arms_without_result


def run_study(
    document: Document, *, file: str, storage: Path, cache: Path, address: str | None, reporter: Reporter
) -> StudyOutcome:
    """Run a study on the Ray cluster at `address` or on this machine, and return its outcome.

    Raises:
        ConfigError: the study file or its data are invalid, or the cluster cannot be used.
    """
    if address is not None:
        _check_address(address, file)
    with LocalCluster(preload=preloaded_module(document)) as local:
        # Ray starts while the data are indexed for the first time: training needs it next.
        def meanwhile() -> None:
            reporter.shown_elsewhere()  # on stderr
            if address is None:
                local.begin()

        plan, searches = load_study(document, file=file, cache=cache, storage=storage, meanwhile=meanwhile)
        refuse_unready(plan, storage, cache)
        store = Store(storage.resolve())
        record_contents(store, plan.contents)
        run = _StudyRun(
            plan=plan, searches=searches, document=document, store=store, cache=cache, cluster=address or local,
            reporter=reporter,
        )  # fmt: skip
        with store.uploading(plan.spec.name), search_lock(plan, store):
            try:
                return run.until_undamaged()
            except ConnectionError as error:
                raise _address_error(error, file) from error


def _check_address(address: str, file: str) -> None:
    """Raise `ConfigError` if an address is not that of a head, before the data are read."""
    try:
        head_address(address)
    except ConnectionError as error:
        raise _address_error(error, file) from error


def _address_error(error: ConnectionError, file: str) -> ConfigError:
    return ConfigError([Problem(path="--address", message=str(error))], file)


@dataclass(frozen=True, kw_only=True)
class _StudyRun:
    """A planned study and where it runs."""

    plan: Plan
    searches: "ArmSearches | None"
    document: Document
    store: Store
    cache: Path
    cluster: str | LocalCluster
    reporter: Reporter

    def until_undamaged(self) -> StudyOutcome:
        """Run the study; if a damaged file is read, move it aside and run again, which recreates it."""
        for message in changed_weights(self.plan):
            self._say(message)
        for _ in range(ATTEMPTS - 1):
            try:
                return self._run()
            except DamagedStageError as error:
                self._say(f"{error.short}; {self.store.set_aside(error)}; all of the study is verified")
                for damage in set_damaged_aside(self.plan, self.store, every_byte=True).values():
                    self._say(f"{damage}; it was set aside too")
        return self._run()

    def _run(self) -> StudyOutcome:
        """Run the pending stages, derive the tables, remove the weights that are not kept."""
        plan, searches, store = self.plan, self.searches, self.store
        write_study(plan, self.document, store, self._say, searches)
        pending = pending_stages(plan, store)
        progress = StudyProgress(plan, pending)
        with heartbeat(store.study(plan.spec.name) / DRIVER, progress.status) as heart:
            forget_failures(plan, store)
            queue = self._execute(pending, progress)
            self.reporter.begin("deriving the tables", at_once=False)
            comparisons = write_outcome(plan, store)
            outcome = StudyOutcome(
                plan=plan, comparisons=comparisons,
                failures={digest: error for digest, error in queue.failed.items() if digest in plan.nodes},
                skipped=frozenset(queue.skipped & plan.nodes.keys()),
                arms_without_result=tuple(searches.arms_without_result) if searches is not None else (),
            )  # fmt: skip
            if not outcome.failures:  # a failed stage is retried by the next run, and may start from any other
                drop_weights(plan, store, best_stages(plan, comparisons), self._say, searches)
            draw_learning_curve(plan, store, comparisons)
            heart.state = "finished" if outcome.is_complete else "failed"
        return outcome

    def _execute(self, pending: PendingStages, progress: StudyProgress) -> StageQueue:
        """Run the pending stages on the cluster, and those that a search adds."""
        if not pending.stages and not self.plan.graph.is_searching:
            return StageQueue()
        if isinstance(self.cluster, LocalCluster):
            self.reporter.begin("starting Ray on this machine")
            self.cluster.begin()  # starts Ray while the scheduler is imported
        else:
            self.reporter.begin(f"connecting to the cluster at {self.cluster}")
        from study.execution.scheduler import execute_pending

        return execute_pending(
            self.plan, pending, self.searches, store=self.store, cache=self.cache.resolve(), cluster=self.cluster,
            display=Display(progress, self.reporter),
        )  # fmt: skip

    def _say(self, text: str) -> None:
        self.reporter.line(text)
