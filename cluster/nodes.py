"""What every node of a cluster has to see, asked of each before the first item."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

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


def apart(without: Collection[str]) -> dict[str, str] | None:
    """Return Ray's label selector of all nodes but these, None for all."""
    return {NODE_ID: f"!in({','.join(sorted(without))})"} if without else None


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
