"""Published initial weights that a plan needs: are they here, or can they be had?"""

from models.catalog import hub, registry
from models.catalog.registry import has_weights
from study.planning.graph import Plan
from study.planning.pending import PendingStages
from study.store.pretrained import kept
from study.store.store import Store


def missing_weights(plan: Plan, left: PendingStages, store: Store) -> list[str]:
    """Return a line for each set of published weights that what is left needs and that is not to be had."""
    lacking = [
        one for one in pretrained_weights(plan, left, store) if not registry.cached(*one) and kept(store, *one) is None
    ]
    if not lacking or hub.reachable():
        return []
    return [
        f"{name} weights of {backbone} ({registry.initial_weights_id(backbone, name)}) are not cached and the hub "
        "cannot be reached; allowed: weights that can be read; fetch them once where there is a network and set "
        "HF_HOME to that cache, name a file, or use random"
        for backbone, name in lacking
    ]


def pretrained_weights(plan: Plan, left: PendingStages, store: Store) -> list[tuple[str, str]]:
    """Return the published weights that what is left starts from, candidates too: backbone and name."""
    nodes = [plan.nodes[digest] for digest in left.stages]
    if plan.searches is not None and not plan.searches.finished:
        late, finished = plan.after_search | plan.candidates, store.finished()
        nodes += [node for digest, node in late.items() if digest not in finished]
    first = [node for node in nodes if node.parent is None]
    wanted = {(node.recipe.step.backbone, str(node.initial_weights)) for node in first}
    return sorted((backbone, name) for backbone, name in wanted if has_weights(backbone, name))
