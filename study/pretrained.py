"""Published initial weights that a plan needs: are they here, or can they be had?"""

from models import catalogue, hub
from study.kept import kept, published
from study.plan import Plan
from study.store import Store
from study.todo import Todo


def missing_weights(plan: Plan, left: Todo, store: Store) -> list[str]:
    """Return a line for each set of published weights that what is left needs and that is not to be had."""
    lacking = [one for one in published(plan, left, store) if not catalogue.cached(*one) and kept(store, *one) is None]
    if not lacking or hub.reachable():
        return []
    return [
        f"{name} weights of {backbone} ({catalogue.initial_weights_id(backbone, name)}) are not cached and the hub "
        "cannot be reached; allowed: weights that can be read; fetch them once where there is a network and set "
        "HF_HOME to that cache, name a file, or use random"
        for backbone, name in lacking
    ]
