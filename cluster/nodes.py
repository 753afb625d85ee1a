"""What every node of a cluster has to see: asked of each at first, and by each process on one that joined later."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Check = Callable[[], str]
"""Returns what is wrong with the node it runs on, nothing where all is well."""
NODE_ID = "ray.io/node-id"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine that can work, and why it is left out, where it is."""

    id: str
    name: str
    fault: str = ""

    @property
    def text(self) -> str:
        """Say that it is left out, and why."""
        return f"node {self.name} is left out: it {self.fault}"


@dataclass(frozen=True, kw_only=True)
class AdmittedNodes:
    """Which nodes get work: neither those with an id of `without`, nor others where the check finds a fault."""

    check: Check | None = None
    known: frozenset[str] = frozenset()
    """Ids of nodes where nothing is wrong."""
    without: frozenset[str] = frozenset()

    @classmethod
    def of(cls, check: Check, nodes: list[Node]) -> "AdmittedNodes":
        """Return what follows from asking these nodes."""
        out = frozenset(node.id for node in nodes if node.fault)
        return cls(check=check, known=frozenset(node.id for node in nodes) - out, without=out)

    def but(self, nodes: Collection[str]) -> "AdmittedNodes":
        """Return the same without more nodes."""
        return replace(self, without=self.without.union(nodes))

    @property
    def selector(self) -> dict[str, str] | None:
        """Return Ray's label selector of the nodes that may get work, None for all."""
        return apart(self.without)

    def here(self) -> Node:
        """Return the node of this process, checked unless it is known. May take as long as reading the data."""
        node = this_node()
        return node if self.check is None or node.id in self.known else replace(node, fault=_fault(self.check))


def this_node(fault: str = "") -> Node:
    """Return the node of this process."""
    return Node(id=str(ray.get_runtime_context().get_node_id()), name=ray.util.get_node_ip_address(), fault=fault)


def apart(without: Collection[str]) -> dict[str, str] | None:
    """Return Ray's label selector of all nodes but these, None for all."""
    return {NODE_ID: f"!in({','.join(sorted(without))})"} if without else None


def _fault(check: Check) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - whatever it is, the node is at fault, not what was to run there
        return f"cannot be asked: {type(error).__name__}: {error}"


class NodesRejected(RuntimeError):  # noqa: N818 - an expected state
    """Processes met nodes that do not see what they have to."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        super().__init__("; ".join(node.text for node in nodes))

    def __reduce__(self) -> tuple[type["NodesRejected"], tuple[Sequence[Node]]]:
        return NodesRejected, (self.nodes,)  # it crosses processes


ALL = AdmittedNodes()


class _Running:
    admission = ALL


def enter(admission: AdmittedNodes) -> None:
    """Say where the work that this process runs now may spread to."""
    _Running.admission = admission


def running() -> AdmittedNodes:
    """Return where the work that this process runs may spread to."""
    return _Running.admission


def checked(check: Check, *, seconds: float) -> list[Node]:
    """Run a check on every node that has processors, all at once; one that does not answer in time is at fault."""
    found = {str(node["NodeID"]): node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    asked = {
        name: ray.remote(_asked)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
        .remote(check)
        for name in found
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    return [
        Node(id=name, name=str(found[name]["NodeManagerAddress"]), fault=_answer(reference, seconds))
        for name, reference in asked.items()
    ]


def _asked(check: Check) -> str:
    return check()


def _answer(reference: "ray.ObjectRef[str]", seconds: float) -> str:
    try:
        return str(ray.get(reference, timeout=0))
    except GetTimeoutError:
        return f"did not answer in {seconds:g} seconds"
    except RayError as error:
        return f"cannot be asked: {(str(error).strip() or type(error).__name__).splitlines()[-1]}"
