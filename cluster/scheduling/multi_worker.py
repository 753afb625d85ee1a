"""One item of work shared by several processes that talk to each other: Ray Train inside a trial."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from ray.util.queue import Empty, Queue

from cluster.nodes import AdmittedNodes, NodesRejected
from cluster.protocol import LOST_PROCESSES, Report, Share
from cluster.scheduling.rendezvous import LoopbackTorchConfig

Member = Callable[[int, int, Report], None]
"""What each process does, given its rank, how many there are, and whom it tells; all of them tell, in step."""
POLL_SECONDS = 1.0


class Stopped(RuntimeError):  # noqa: N818 - an expected state
    """The report was the last one wanted."""


def distribute(
    member: Member, report: Report, *, share: Share, admission: AdmittedNodes, name: str, scratch: str
) -> None:
    """Run a member in each of the workers of a share, and report what the first one tells.

    Raises what a member or `report` raises, or `NodesRejected`, once all have stopped. If a process is lost all begin
    again, and have to know themselves where from. `scratch` is a folder or URI that every node sees. Each start
    costs many seconds.
    """
    for _ in range(LOST_PROCESSES + 1):
        questions, answers = (Queue(actor_options={"num_cpus": 0}) for _ in range(2))
        trainer = TorchTrainer(
            _in_worker,
            torch_config=LoopbackTorchConfig(),
            train_loop_config={"member": member, "questions": questions, "answers": answers, "admission": admission},
            scaling_config=ScalingConfig(
                num_workers=share.workers,
                use_gpu=share.gpus > 0,
                resources_per_worker={"CPU": share.cpus, "GPU": share.gpus} if share.gpus else {"CPU": share.cpus},
                label_selector=admission.selector,
            ),
            run_config=RunConfig(name=name, storage_path=scratch, failure_config=FailureConfig(max_failures=0)),
        )
        try:
            _fit(trainer, report, questions, answers)
        except (WorkerGroupError, ControllerError) as error:
            raised = _raised(error)
            if raised is not None:
                raise raised from error
        else:
            return
        finally:
            questions.shutdown()
            answers.shutdown()
    raise RuntimeError(f"a process of its {share.workers} workers was lost {LOST_PROCESSES + 1} times")


def _fit(trainer: TorchTrainer, report: Report, questions: Queue, answers: Queue) -> None:
    """Train in a thread, and pass each report on in this one: Tune ends a trial where it reports."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        training = pool.submit(trainer.fit)
        while not training.done():
            try:
                scores = questions.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            try:
                report(scores)
            except BaseException:
                answers.put("stop")
                wait([training])
                raise
            answers.put("go on")
        training.result()


def _in_worker(config: dict[str, Any]) -> None:
    node = config["admission"].here()
    if node.fault:
        raise NodesRejected([node])
    context = ray.train.get_context()
    rank = context.get_world_rank()

    def report(scores: dict[str, float]) -> None:
        answer = ""
        if rank == 0:
            config["questions"].put(dict(scores))
            answer = config["answers"].get()
        if broadcast_from_rank_zero(answer) == "stop":
            raise Stopped

    config["member"](rank, context.get_world_size(), report)


def _raised(error: WorkerGroupError | ControllerError) -> BaseException | None:
    """Return what a member raised, None where processes were lost: what others raise then follows from that."""
    if isinstance(error, ControllerError):
        failure: BaseException = error.controller_failure
        return failure
    failures: list[BaseException] = list(error.worker_failures.values())
    unfit = {node.id: node for failure in failures if isinstance(failure, NodesRejected) for node in failure.nodes}
    if unfit:
        return NodesRejected(list(unfit.values()))
    if any(_is_loss(failure) for failure in failures):
        return None
    # A member that fails lets the others fail with it, in torch's exchange between them.
    return min(failures, key=lambda one: type(one) is RuntimeError or "distributed" in type(one).__module__)


def _is_loss(failure: BaseException) -> bool:
    """Return whether a failure is that of a process, not of what ran in it: it no longer answered, or answers late."""
    if isinstance(failure, WorkerHealthCheckFailedError):
        failure = failure.health_check_failure
    return isinstance(failure, RayError | WorkerHealthCheckTimeoutError) and not isinstance(failure, RayTaskError)
