"""Published initial weights that a plan needs: are they here, or can they be had?"""

from models import catalogue, hub
from study.plan import Plan


def missing_weights(plan: Plan) -> list[str]:
    """Return a line for each set of published weights that is neither cached nor to be had."""
    wanted = {(arm.chain[0].backbone, str(arm.initial_weights)) for arm in plan.arms}
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
