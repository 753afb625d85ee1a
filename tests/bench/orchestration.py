"""Cost of Ray, Ray Tune and the queue around a stage without work: time, and memory of the driver."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
from ray.cluster_utils import Cluster

from cluster.connect import Capacity, connected
from cluster.local_cluster import LocalCluster
from cluster.protocol import Listener, QueuedStage, ReportFunction, StageOutcome, StageResources
from cluster.scheduling.executor import execute
from cluster.tokens import fresh_token
from tests.bench.figure import Figure, interleaved

COUNTS = (100, 1000, 5000)
ON_NODES = (100, 1000)
"""Nodes that are processes of one machine take minutes per run; more stages are measured without them."""
ROUNDS, SECONDS = 3, 120.0
"""Runs of each count, and the time in seconds within which further rounds end."""
NODES = 50
FIRST = "first"
NODE_BYTES = 3 * 2**27
"""Memory of a simulated node: a raylet, its companion processes, and the process of a stage."""
LISTS = "Ray Tune goes through lists of all trials that it has had, more of them with each stage"
CROWDED = "the nodes and their processes share this machine's cores with the driver"
STORE_BYTES = 80 * 2**20
"""Shared memory for the objects of a node, near the minimum of Ray."""


def idle_stages(*, quick: bool) -> Iterator[Figure]:
    """Measure seconds per stage between the first end and the last, which excludes start-up."""
    with connected(LocalCluster()) as capacity:
        costs = {
            count: [run.seconds_each for run in _repeated(count, capacity, quick=quick)]
            for count in ((100, 300) if quick else COUNTS)
        }
    for count, values in costs.items():
        yield Figure(name=f"a stage that does nothing, of {count:,}", unit="s", values=values, goal=0.05)
    fewest, most = (statistics.median(costs[count]) for count in (min(costs), max(costs)))
    name = f"the same, of {max(costs):,} against {min(costs):,}"
    yield Figure(name=name, unit="ratio", values=[most / fewest], goal=_flat(quick=quick), why=LISTS)


def stages_on_nodes(*, quick: bool) -> Iterator[Figure]:
    """Measure the same, and the driver's memory, on a cluster with as many nodes as fit on this machine, at most 50."""
    fits = int(psutil.virtual_memory().available // NODE_BYTES)
    nodes = max(1, min(3 if quick else NODES, fits))
    cpu: dict[int, float] = {}
    with _cluster(nodes) as capacity:
        _run(20, capacity)  # imports and opened files are not counted
        for count in (100, 300) if quick else ON_NODES:
            name = f"a stage on {nodes} nodes, of {count:,}"
            runs = _repeated(count, capacity, processes=nodes, quick=quick)
            cpu_each = [run.cpu_each for run in runs]
            cpu[count] = statistics.median(cpu_each)
            yield Figure(name=name, unit="s", values=[run.seconds_each for run in runs], goal=0.05, why=CROWDED)
            yield Figure(name=name, unit="CPU s of the driver", values=cpu_each)
            # Of the first run, which allocates the memory that later ones reuse.
            yield Figure(name=name, unit="KiB of the driver", values=[runs[0].bytes_each / 2**10], goal=50)
    fewest, most = min(cpu), max(cpu)
    name = f"the driver's CPU a stage, of {most:,} against {fewest:,}"
    yield Figure(name=name, unit="ratio", values=[cpu[most] / cpu[fewest]], goal=_flat(quick=quick), why=LISTS)


def _flat(*, quick: bool) -> float | None:
    """Return the goal of a ratio; one of two single runs of seconds has none."""
    return None if quick else 1.2


@contextmanager
def _cluster(nodes: int) -> Iterator[Capacity]:
    """Start nodes of one CPU core each, which are processes of this machine."""
    of_each = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    with fresh_token():  # an earlier cluster of this machine has enabled authentication
        cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **of_each})
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**of_each)
            with connected(cluster.address) as capacity:
                yield capacity
        finally:
            cluster.shutdown()


def _repeated(count: int, capacity: Capacity, *, processes: int = 0, quick: bool) -> list["_Gauge"]:
    side = partial(_run, count, capacity, processes=processes)
    return interleaved({"runs": side}, 1 if quick else ROUNDS, within=SECONDS)["runs"]


def _run(count: int, capacity: Capacity, *, processes: int = 0) -> "_Gauge":
    """Run pairs of parent and child, after the given number of processes have started and waited for each other."""
    first = [QueuedStage(id=f"{FIRST}{number:02d}", cost=3.0) for number in range(processes)]
    items = [
        QueuedStage(id=f"{number:05d}", needs=(f"{number - 1:05d}",) if number % 2 else (), cost=1.0)
        for number in range(count)
    ]
    gauge = _Gauge()
    with tempfile.TemporaryDirectory(prefix="b-") as place:
        work = partial(do_nothing, Path(place), processes)
        queue = execute([*first, *items], work, gauge, capacity=capacity, resources=StageResources())
    assert len(queue.done) == processes + count
    return gauge


def do_nothing(place: Path, processes: int, name: str, report: ReportFunction) -> StageOutcome:
    """Return immediately; the first ones return as soon as all of these have started.

    Nodes that are processes of one machine take long to start theirs, and Tune ends those that still start if
    another is free: otherwise processes would start during the entire run.
    """
    if name.startswith(FIRST):
        (place / name).touch()
        while len(list(place.iterdir())) < processes:
            time.sleep(0.1)
    return StageOutcome(status="done")


class _Gauge(Listener):
    """Time, CPU time and memory of this process, by stage, between the first end and the last."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float, int]] = []
        self._process = psutil.Process()

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        if name.startswith(FIRST):
            return
        self._ends.append((time.monotonic(), time.process_time(), self._process.memory_info().rss))

    @property
    def seconds_each(self) -> float:
        return self._each(0)

    @property
    def cpu_each(self) -> float:
        return self._each(1)

    @property
    def bytes_each(self) -> float:
        return self._each(2)

    def _each(self, column: int) -> float:
        return (self._ends[-1][column] - self._ends[0][column]) / (len(self._ends) - 1)
