"""The work of one process of the cluster: stages by digest. It imports torch when it gets the first one."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.nodes import NodesRejected, running, this_node
from cluster.protocol import Report, Share, StageOutcome
from study.store.damage import DamagedStageError
from study.store.lease import LeaseHeld
from study.store.object_store import under
from study.store.retry import patiently
from study.training.job import RuntimeContext, StageJob

if TYPE_CHECKING:
    import torch

    from study.training.train_stage import DistributeFunction, Member


@dataclass(frozen=True)
class Worker:
    """The work of one process of the cluster, sent there once. `candidate`: a search may have it stopped."""

    jobs: dict[str, StageJob]
    runtime: RuntimeContext
    candidate: bool = False

    def __call__(self, digest: str, report: Report) -> StageOutcome:
        """Perform one stage and say how it ended."""
        # Imported here: it takes seconds, and the driver needs none of it.
        from study.training.loader import CPU, UnusableGpu, WorkerContext
        from study.training.oom import OutOfMemoryError, too_large
        from study.training.train_stage import run_stage

        job, around = self.jobs[digest], self.runtime
        store = around.store
        device, joined = CPU, running().check is not None
        try:
            if around.workers == 1:  # else this process only waits, where there may be no GPU
                device = _device(around, joined=joined)
            context = WorkerContext(report=report, device=device, compiles=around.compiles)
            spread = self._spread(job, report) if around.workers > 1 else None
            patiently(functools.partial(run_stage, job, around, context, spread))
        except SystemExit:  # how Tune stops a trial: one that is pruned, and all of them where the driver fails
            if self.candidate:
                store.drop_work(digest)
            raise
        except NodesRejected as met:
            return StageOutcome(status="rejected", detail=str(met), nodes=tuple(node.id for node in met.nodes))
        except UnusableGpu as error:
            return StageOutcome(status="failed", detail=f"this machine {error}")
        except OutOfMemoryError as error:
            return StageOutcome(status="failed", detail=too_large(job, around, device, error))
        except LeaseHeld:
            return StageOutcome(status="busy")
        except DamagedStageError as error:
            store.set_aside(error)
            return StageOutcome(status="redo", detail=error.short, redo=error.digest)
        return StageOutcome(status="done")

    def _spread(self, job: StageJob, report: Report) -> "DistributeFunction":
        """Return how a stage is shared among workers."""
        from cluster.scheduling.multi_worker import distribute

        around, work = self.runtime, self.runtime.store.work(job.digest)
        scratch = under(around.origin, f"work/{job.digest}") if around.origin else str(work)

        def spread(train: "Member") -> None:
            distribute(
                functools.partial(_in_worker, train, around, running().check is not None),
                report,
                share=Share(cpus=around.cpus, gpus=around.gpus, workers=around.workers),
                admission=running(),
                name="train",
                scratch=scratch,
            )

        return spread


def _in_worker(
    train: "Member", around: RuntimeContext, joined: bool, rank: int, world: int, report: Report
) -> None:  # fmt: skip
    from study.training.loader import WorkerContext

    device = _device(around, joined=joined)
    train(WorkerContext(report=report, rank=rank, world=world, device=device, compiles=around.compiles))


def _device(around: RuntimeContext, *, joined: bool) -> "torch.device":
    """Return the device of this process. Raises `UnusableGpu`, or `NodesRejected` if others can do without its node."""
    from study.training.loader import UnusableGpu, own_device

    try:
        return own_device(around.gpus)
    except UnusableGpu as error:
        if not joined:
            raise
        raise NodesRejected([this_node(str(error))]) from error
