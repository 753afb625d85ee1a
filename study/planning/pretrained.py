"""Published initial weights that a plan needs, and which of them are not available."""

from models.catalog import hub, registry
from models.catalog.registry import has_weights
from study.planning.graph import Plan
from study.planning.pending import PendingStages
from study.store.pretrained import stored_weights
from study.store.store import Store


def missing_weights(plan: Plan, pending: PendingStages, store: Store) -> list[str]:
    """Return a message for each set of published weights that pending stages need and that is not available."""
    missing = [
        weights
        for weights in pretrained_weights(plan, pending, store)
        if not registry.cached(*weights) and stored_weights(store, *weights) is None
    ]
    if not missing or hub.reachable():
        return []
    return [
        f"{name} weights of {backbone} ({registry.initial_weights_id(backbone, name)}) are not cached and the hub "
        "cannot be reached; allowed: weights that can be read; fetch them once where there is a network and set "
        "HF_HOME to that cache, name a file, or use random"
        for backbone, name in missing
    ]


def pretrained_weights(plan: Plan, pending: PendingStages, store: Store) -> list[tuple[str, str]]:
    """Return backbone and name of the published weights from which pending stages and candidates start."""
    nodes = [plan.nodes[digest] for digest in pending.stages]
    if plan.graph.is_searching:
        unplanned, finished = {**plan.graph.after_search, **plan.candidates}, store.finished()
        nodes += [node for digest, node in unplanned.items() if digest not in finished]
    first_stages = [node for node in nodes if node.parent is None]
    names = {(node.step.backbone, str(node.initial_weights)) for node in first_stages}
    return sorted((backbone, name) for backbone, name in names if has_weights(backbone, name))
