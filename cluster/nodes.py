"""Check that nodes see the data and the storage before they run stages, also those that join later."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Check = Callable[[], str]
"""Runs on a node and returns what is wrong with it, "" where nothing is."""
NODE_ID = "ray.io/node-id"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of the cluster; `fault` says why it is excluded, "" where it is not."""

    id: str
    name: str
    fault: str = ""

    @property
    def text(self) -> str:
        """Return the message that the node is excluded, with the reason."""
        return f"node {self.name} is excluded: it {self.fault}"


@dataclass(frozen=True, kw_only=True)
class AdmittedNodes:
    """Which nodes may run stages: all but those in `excluded` and those where `check` finds a fault."""

    check: Check | None = None
    passed: frozenset[str] = frozenset()
    """Ids of nodes that passed the check and are not checked again."""
    excluded: frozenset[str] = frozenset()

    @classmethod
    def from_checks(cls, check: Check, nodes: list[Node]) -> "AdmittedNodes":
        """Admit the nodes without a fault and exclude the others."""
        rejected = frozenset(node.id for node in nodes if node.fault)
        return cls(check=check, passed=frozenset(node.id for node in nodes) - rejected, excluded=rejected)

    def excluding(self, nodes: Collection[str]) -> "AdmittedNodes":
        """Return a copy that also excludes these node ids."""
        return replace(self, excluded=self.excluded.union(nodes))

    @property
    def selector(self) -> dict[str, str] | None:
        """Return Ray's label selector of the nodes that are not excluded, None for all nodes."""
        return node_selector(self.excluded)

    def check_this_node(self) -> Node:
        """Return the node of this process, checked unless it is in `passed`. May take as long as reading the data."""
        node = this_node()
        return node if self.check is None or node.id in self.passed else replace(node, fault=_fault(self.check))


def this_node(fault: str = "") -> Node:
    """Return the node of this process."""
    return Node(id=str(ray.get_runtime_context().get_node_id()), name=ray.util.get_node_ip_address(), fault=fault)


def node_selector(excluded: Collection[str]) -> dict[str, str] | None:
    """Return Ray's label selector of all nodes except these, None for all nodes."""
    return {NODE_ID: f"!in({','.join(sorted(excluded))})"} if excluded else None


def _fault(check: Check) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check that raises excludes the node, it does not fail the stage
        return f"cannot be checked: {type(error).__name__}: {error}"


class NodesRejected(RuntimeError):  # noqa: N818 - an expected state
    """Workers ran on nodes that failed the check."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = tuple(nodes)
        super().__init__("; ".join(node.text for node in nodes))

    def __reduce__(self) -> tuple[type["NodesRejected"], tuple[Sequence[Node]]]:
        return NodesRejected, (self.nodes,)  # pickled between processes


ALL_NODES = AdmittedNodes()


class _Current:
    admission = ALL_NODES


def set_admission(admission: AdmittedNodes) -> None:
    """Set which nodes the stage that runs in this process may start workers on."""
    _Current.admission = admission


def current_admission() -> AdmittedNodes:
    """Return which nodes the stage that runs in this process may start workers on."""
    return _Current.admission


def check_nodes(check: Check, *, seconds: float) -> list[Node]:
    """Run a check on every node with CPU cores, in parallel; no answer within `seconds` is a fault."""
    nodes = {str(node["NodeID"]): node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    results = {
        node_id: ray.remote(_run_check)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
        .remote(check)
        for node_id in nodes
    }
    ray.wait(list(results.values()), num_returns=len(results), timeout=seconds)
    return [
        Node(id=node_id, name=str(nodes[node_id]["NodeManagerAddress"]), fault=_check_result(result, seconds))
        for node_id, result in results.items()
    ]


def _run_check(check: Check) -> str:
    return check()


def _check_result(result: "ray.ObjectRef[str]", seconds: float) -> str:
    try:
        return str(ray.get(result, timeout=0))
    except GetTimeoutError:
        return f"did not answer in {seconds:g} seconds"
    except RayError as error:
        return f"cannot be checked: {(str(error).strip() or type(error).__name__).splitlines()[-1]}"
