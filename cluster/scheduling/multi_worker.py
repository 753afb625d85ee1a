"""One stage on several workers that communicate: Ray Train inside a trial."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.util.queue import Empty, Queue

from cluster.nodes import AdmittedNodes, NodesRejected
from cluster.protocol import MAX_LOSSES, ReportFunction, StageResources
from cluster.scheduling.rendezvous import LoopbackTorchConfig

WorkerFunction = Callable[[int, int, ReportFunction], None]
"""Runs on each worker, given its rank, the world size and a report function, which all workers must call together."""
POLL_SECONDS = 1.0


class StageStopped(RuntimeError):  # noqa: N818 - an expected state
    """Raised in workers when the stage is stopped at a report."""


def run_on_workers(
    function: WorkerFunction,
    report: ReportFunction,
    *,
    resources: StageResources,
    admission: AdmittedNodes,
    name: str,
    scratch: str,
) -> None:
    """Run a function on each worker, and pass on the reports of rank 0.

    Raises what the function or `report` raises, or `NodesRejected`, once all workers have stopped. If a worker is lost,
    all restart, and the function has to resume from its own checkpoint. Each start takes many seconds.

    Args:
        scratch: A folder or URI that every node can access.
    """
    for _ in range(MAX_LOSSES + 1):
        reports, answers = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        trainer = TorchTrainer(
            _in_worker,
            torch_config=LoopbackTorchConfig(),
            train_loop_config={"function": function, "reports": reports, "answers": answers, "admission": admission},
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus > 0,
                resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {}),
                label_selector=admission.selector,
            ),
            run_config=RunConfig(name=name, storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            _fit(trainer, report, reports, answers)
        except (WorkerGroupError, ControllerError) as error:
            worker_error = _worker_error(error)
            if worker_error is not None:
                raise worker_error from error
        else:
            return
        finally:
            reports.shutdown()
            answers.shutdown()
    raise RuntimeError(f"a process of its {resources.workers} workers was lost {MAX_LOSSES + 1} times")


def _fit(trainer: TorchTrainer, report: ReportFunction, reports: Queue, answers: Queue) -> None:
    """Train in a thread, and report from this one: Tune stops a trial by raising in `report`."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        training = pool.submit(trainer.fit)
        while not training.done():
            try:
                scores = reports.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            try:
                report(scores)
            except BaseException:
                answers.put("stop")
                wait([training])
                raise
            answers.put("continue")
        training.result()


def _in_worker(config: dict[str, Any]) -> None:
    node = config["admission"].check_this_node()
    if node.fault:
        raise NodesRejected([node])
    context = ray.train.get_context()
    rank = context.get_world_rank()

    def report(scores: dict[str, float]) -> None:
        answer = ""
        if rank == 0:
            config["reports"].put(dict(scores))
            answer = config["answers"].get()
        if broadcast_from_rank_zero(answer) == "stop":
            raise StageStopped

    config["function"](rank, context.get_world_size(), report)


def _worker_error(error: WorkerGroupError | ControllerError) -> BaseException | None:
    """Return the error that a worker raised, None where workers were lost, which makes the others raise too."""
    if isinstance(error, ControllerError):
        failure: BaseException = error.controller_failure
        return failure
    failures: list[BaseException] = list(error.worker_failures.values())
    rejected = {node.id: node for failure in failures if isinstance(failure, NodesRejected) for node in failure.nodes}
    if rejected:
        return NodesRejected(list(rejected.values()))
    if any(_is_loss(failure) for failure in failures):
        return None
    # When a worker fails, the others fail in torch's collective operations: prefer errors of other kinds.
    return min(failures, key=lambda failure: type(failure) is RuntimeError or "distributed" in type(failure).__module__)


def _is_loss(failure: BaseException) -> bool:
    """Return whether a worker process was lost or did not respond, rather than its function having raised."""
    if isinstance(failure, WorkerHealthCheckFailedError):
        failure = failure.health_check_failure
    return isinstance(failure, RayError | WorkerHealthCheckTimeoutError) and not isinstance(failure, RayTaskError)
