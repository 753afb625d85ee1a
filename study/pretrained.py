"""Published initial weights that a plan needs: are they here, or can they be had?"""

from collections.abc import Iterable

from models import catalogue, hub
from study.plan import Plan


def missing_weights(plan: Plan, stages: Iterable[str]) -> list[str]:
    """Return a line for each set of published weights that these stages need and that is not to be had."""
    first = [plan.nodes[digest] for digest in stages if plan.nodes[digest].parent is None]
    wanted = {(node.recipe.step.backbone, str(node.initial_weights)) for node in first}
    named = sorted((backbone, name) for backbone, name in wanted if catalogue.has_weights(backbone, name))
    lacking = [(backbone, name) for backbone, name in named if not catalogue.cached(backbone, name)]
    if not lacking or hub.reachable():
        return []
    return [
        f"{name} weights of {backbone} ({catalogue.initial_weights_id(backbone, name)}) are not cached and the hub "
        "cannot be reached; allowed: weights that can be read; fetch them once where there is a network and set "
        "HF_HOME to that cache, name a file, or use random"
        for backbone, name in lacking
    ]
