"""The worker process: runs stages by digest. Imports torch with the first stage."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.nodes import NodesRejected, current_admission, this_node
from cluster.protocol import ReportFunction, StageOutcome, StageResources
from study.store.damage import DamagedStageError
from study.store.lease import LeaseHeld
from study.store.object_store import join_uri
from study.store.retry import retry_io
from study.training.job import RuntimeContext, StageJob

if TYPE_CHECKING:
    import torch

    from study.training.train_stage import DistributeFunction, Member


@dataclass(frozen=True)
class Worker:
    """The callable that a worker process runs. `candidate`: the stage belongs to a search, which may prune it."""

    jobs: dict[str, StageJob]
    runtime: RuntimeContext
    candidate: bool = False

    def __call__(self, digest: str, report: ReportFunction) -> StageOutcome:
        """Run one stage and return its outcome."""
        # Imported here: torch takes seconds to import, and the driver does not need it.
        from study.training.loader import CPU, UnusableGpu, WorkerContext
        from study.training.oom import OutOfMemoryError, too_large
        from study.training.train_stage import run_stage

        job, runtime = self.jobs[digest], self.runtime
        store = runtime.store
        device, joined = CPU, current_admission().check is not None
        try:
            if runtime.workers == 1:  # otherwise this process only waits and may have no GPU
                device = _device(runtime, joined=joined)
            context = WorkerContext(report=report, device=device, compiles=runtime.compiles)
            distribute = self._distribute_function(job, report) if runtime.workers > 1 else None
            retry_io(functools.partial(run_stage, job, runtime, context, distribute))
        except SystemExit:  # see `cluster.protocol.ReportFunction`
            if self.candidate:
                store.drop_work(digest)
            raise
        except NodesRejected as error:
            return StageOutcome(status="rejected", detail=str(error), nodes=tuple(node.id for node in error.nodes))
        except UnusableGpu as error:
            return StageOutcome(status="failed", detail=f"this machine {error}")
        except OutOfMemoryError as error:
            return StageOutcome(status="failed", detail=too_large(job, runtime, device, error))
        except LeaseHeld:
            return StageOutcome(status="busy")
        except DamagedStageError as error:
            return StageOutcome(status="redo", detail=f"{error.short}; {store.set_aside(error)}", redo=error.digest)
        return StageOutcome(status="done")

    def _distribute_function(self, job: StageJob, report: ReportFunction) -> "DistributeFunction":
        """Return the function that distributes a stage over several workers."""
        from cluster.scheduling.multi_worker import run_on_workers

        runtime, folder = self.runtime, self.runtime.store.work(job.digest)
        scratch = join_uri(runtime.origin, f"work/{job.digest}") if runtime.origin else str(folder)

        def run_distributed(train: "Member") -> None:
            run_on_workers(
                functools.partial(_in_worker, train, runtime, current_admission().check is not None),
                report,
                resources=StageResources(cpus=runtime.cpus, gpus=runtime.gpus, workers=runtime.workers),
                admission=current_admission(),
                name="train",
                scratch=scratch,
            )

        return run_distributed


def _in_worker(
    train: "Member", runtime: RuntimeContext, joined: bool, rank: int, world: int, report: ReportFunction
) -> None:  # fmt: skip
    from study.training.loader import WorkerContext

    device = _device(runtime, joined=joined)
    train(WorkerContext(report=report, rank=rank, world=world, device=device, compiles=runtime.compiles))


def _device(runtime: RuntimeContext, *, joined: bool) -> "torch.device":
    """Return the device of this process. Raises `UnusableGpu`, or `NodesRejected` on a cluster with other nodes."""
    from study.training.loader import UnusableGpu, process_device

    try:
        return process_device(runtime.gpus)
    except UnusableGpu as error:
        if not joined:
            raise
        raise NodesRejected([this_node(str(error))]) from error
