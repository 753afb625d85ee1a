"""Runs a dispatcher's stages as the trials of one Ray Tune run. The only module that knows Ray Tune.

Tune asks `QueueSearcher` for the next trial and `QueueScheduler` for the trial to start. Private names of Tune are
listed in `cluster/ray_internals.py`.
"""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.nodes import node_selector
from cluster.protocol import MAX_LOSSES, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.dispatcher import StageDispatcher, TrialConfig
from cluster.scratch import scratch_folder

# Tune would log the traceback of every lost process, although the stage is retried, and warn about missing result
# files, which are in the store instead. Errors that end the run are raised.
logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
MAX_TRIALS = 100_000
"""Tune's limit of concurrent trials, which is fixed at the start; `Slots` sets the actual one."""
SCORES = "scores"
"""Key of an intermediate report; the last report of a trial is its outcome."""

StageFunction = Callable[[TrialConfig, ReportFunction], StageOutcome]
"""Runs the stage of a trial in a worker process, given a function to report scores."""


def run_trials(
    stage_function: StageFunction, dispatcher: StageDispatcher, resources: StageResources, *, one_environment: bool
) -> None:
    """Run trials until the dispatcher has no more stages.

    Raises the first error of the dispatcher itself: Tune would wrap it, or ignore it.

    Args:
        one_environment: Whether all workers have the environment of this process, as in a local cluster.
    """

    def placement(config: TrialConfig) -> tune.PlacementGroupFactory:
        # A trial with several workers only waits for them, on the head, which is not checked.
        selector = node_selector(config["excluded_nodes"]) if resources.workers == 1 else None
        options = {"bundle_label_selector": [selector]} if selector else {}
        return tune.PlacementGroupFactory([replace(resources, gpus=config["gpus"]).bundle], **options)

    trainable = tune.with_resources(functools.partial(_trial, stage_function=stage_function), placement)
    calls = DispatcherCalls(dispatcher)
    with scratch_folder() as scratch, patched_tune(one_environment=one_environment):
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=QueueSearcher(calls),
                num_samples=-1,
                scheduler=QueueScheduler(calls),
                max_concurrent_trials=MAX_TRIALS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            if calls.error is None:
                raise
        if calls.error is not None:
            raise calls.error


def _trial(config: TrialConfig, stage_function: StageFunction) -> None:
    """Run in a worker process: one stage."""
    outcome = stage_function(config, lambda scores: tune.report({SCORES: dict(scores)}))
    tune.report(asdict(outcome))


class DispatcherCalls:
    """Gives Tune's calls access to the dispatcher until one of them raises."""

    def __init__(self, dispatcher: StageDispatcher) -> None:
        self._dispatcher = dispatcher
        self.error: Exception | None = None
        """First error of a call."""

    @contextmanager
    def dispatcher(self) -> Iterator[StageDispatcher]:
        """Yield the dispatcher and keep the first error in the block. Raises it again in all later calls."""
        if self.error is not None:
            raise self.error
        try:
            yield self._dispatcher
        except Exception as error:
            self.error = error
            raise

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its searcher and scheduler for a restore that never happens."""
        return {}


class QueueSearcher(Searcher):
    """Suggests the dispatcher's next stage as a trial, and passes on the outcomes that trials report."""

    def __init__(self, calls: DispatcherCalls) -> None:
        super().__init__()
        self._calls = calls

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Return True: the dispatcher limits the number of trials."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of a trial; None while all stages wait, FINISHED at the end."""
        with self._calls.dispatcher() as dispatcher:
            config = dispatcher.assign(trial_id)
            if config is None:
                return str(Searcher.FINISHED) if dispatcher.queue.finished else None
            return dict(config)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on the outcome in the last report of a trial, None where there is no such report."""
        outcome = None
        if not error and result is not None and "status" in result:
            outcome = StageOutcome(**{field.name: result[field.name] for field in fields(StageOutcome)})
        with self._calls.dispatcher() as dispatcher:
            dispatcher.ended(trial_id, outcome)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: results are in the store, Tune's files are temporary."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a resumed study is planned again."""


class QueueScheduler(FIFOScheduler):
    """Starts trials in the order of submission, and stops a trial at a report where the source asks for it."""

    def __init__(self, calls: DispatcherCalls) -> None:
        super().__init__()
        self._calls = calls

    def choose_trial_to_run(self, controller: tune_controller.TuneController) -> Trial | None:
        """Return the first pending trial; a lost one keeps its position.

        Tune calls this at every step, so it also passes on which trials have started. Tune's own method iterates over
        all trials of the run, three times for each trial.
        """
        with self._calls.dispatcher() as dispatcher:
            dispatcher.check_capacity()
            live = {trial.trial_id: trial for trial in controller.get_live_trials()}
            submitted = [live[trial_id] for trial_id in dispatcher.trial_ids if trial_id in live]
            for trial in submitted:
                if trial.status == Trial.RUNNING:
                    dispatcher.started(trial.trial_id)
        return next((trial for trial in submitted if trial.status == Trial.PENDING), None)

    def on_trial_result(self, controller: object, trial: Trial, result: Mapping[str, Any]) -> str:
        """Pass scores on and decide whether the trial continues. Tune has flattened the report's keys."""
        prefix = f"{SCORES}/"
        scores = {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}
        with self._calls.dispatcher() as dispatcher:
            dispatcher.started(trial.trial_id)
            stop = bool(scores) and dispatcher.progressed(trial.trial_id, scores)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, controller: object, trial: Trial) -> None:
        """Pass on that the worker process of a running trial was lost, if Tune restarts the trial."""
        if trial.status != Trial.PENDING and trial.should_recover():
            with self._calls.dispatcher() as dispatcher:
                dispatcher.lost(trial.trial_id, _loss_reason(trial))


def _loss_reason(trial: Trial) -> str:
    """Return why a process was lost if the user can act on it, else ""."""
    try:
        errors = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    out_of_memory = NodeOutOfMemory.__name__ in errors.rpartition("Failure #")[2]
    return "the memory of its node was short" if out_of_memory else ""


class NodeOutOfMemory(RayActorError):  # noqa: N818 - a state of a node, not a bug
    """A node ran out of memory and Ray killed a worker there."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error_msg=f"{type(self).__name__}: {error}")


class ActorManager(tune_controller.RayActorManager):
    """Reports out-of-memory kills to Tune as lost actors; Tune does not handle that error and would end the run."""

    def _actor_task_failed(self, tracked_actor_task: object, exception: Exception) -> None:
        out_of_memory = isinstance(exception, OutOfMemoryError)
        super()._actor_task_failed(tracked_actor_task, NodeOutOfMemory(exception) if out_of_memory else exception)


class SharedActorClasses:
    """Converts classes to actors without a runtime environment.

    Tune gives its actors a separate runtime environment, for which Ray cannot reuse its idle workers.
    """

    def __init__(self) -> None:
        self.get = functools.cache(ray.remote)


@contextmanager
def patched_tune(*, one_environment: bool) -> Iterator[None]:
    """Replace two classes of Tune in the block; it has no settings for what they do."""
    before = tune_controller.RayActorManager, tune_controller._ActorClassCache
    tune_controller.RayActorManager = ActorManager
    if one_environment:
        tune_controller._ActorClassCache = SharedActorClasses
    try:
        yield
    finally:
        tune_controller.RayActorManager, tune_controller._ActorClassCache = before
