"""Published initial weights of a plan: their contents, and which of them are not available."""

from collections.abc import Iterable, Iterator

from models.catalog import hub
from models.catalog.hub_cache import cached_content, cached_file
from models.catalog.published import Content, PublishedWeights
from models.catalog.registry import has_weights, published_weights
from study.planning.arms import Arm
from study.planning.graph import Plan, PlannedStage
from study.planning.pending import PendingStages
from study.store.pretrained import recorded_content, stored_weights
from study.store.store import Store

NamedWeights = tuple[str, str]
"""Backbone, and name of its published weights."""


def contents_of(arms: Iterable[Arm], store: Store | None) -> dict[PublishedWeights, Content | None]:
    """Return the content of all published weights that arms start from, None where it is not known.

    It is what the storage has recorded, else what the table of backbones states, what is in the local cache, or, for
    revisions that may change, what the hub has now.
    """
    names = {(arm.chain[0].backbone, str(arm.initial_weights)) for arm in arms}
    weights = dict.fromkeys(published_weights(*name) for name in sorted(names) if has_weights(*name))
    contents = {
        published: (recorded_content(store, published) if store is not None else None)
        or published.stated
        or cached_content(published)
        for published in weights
    }
    unknown = [published for published, content in contents.items() if _is_unknown(published, content)]
    return contents | (hub.upstream_contents(unknown) if unknown and hub.reachable() else {})


def _is_unknown(weights: PublishedWeights, content: Content | None) -> bool:
    """Return whether stages that start from these weights have no digest yet."""
    return content is None and not weights.is_identified_by_commit


def provisional_stages(plan: Plan) -> dict[NamedWeights, list[str]]:
    """Return the digests of all stages that depend on published weights whose content is not known."""
    nodes = {**plan.nodes, **plan.graph.after_search}
    stages: dict[NamedWeights, list[str]] = {}
    for digest, node in nodes.items():
        first = node
        while first.parent is not None:
            first = nodes[first.parent]
        name = _named_weights(first)
        if name is not None and _is_unknown(weights := published_weights(*name), plan.contents.get(weights)):
            stages.setdefault(name, []).append(digest)
    return stages


def missing_weights(plan: Plan, pending: PendingStages, store: Store) -> list[str]:
    """Return a message for each set of published weights that pending stages need and that is not available."""
    missing = {}
    for name in pretrained_weights(plan, pending, store):
        weights = published_weights(*name)
        content = plan.contents.get(weights)
        if _is_unknown(weights, content) or not _is_at_hand(weights, content, store):
            missing[name] = weights, content
    is_online = bool(missing) and hub.reachable()
    messages = (_message(*name, *values, is_online=is_online) for name, values in missing.items())
    return [message for message in messages if message]


def _is_at_hand(weights: PublishedWeights, content: Content | None, store: Store) -> bool:
    return cached_file(weights, content) is not None or stored_weights(store, weights, content) is not None


def _message(backbone: str, name: str, weights: PublishedWeights, content: Content | None, *, is_online: bool) -> str:
    """Return why weights cannot be read; empty if the hub has them."""
    subject = f"{name} weights of {backbone} ({weights})"
    remedy = "fetch them once where there is a network and set HF_HOME to that cache, name a file, or use random"
    if _is_unknown(weights, content):
        reason = "gives no hash of the file" if is_online else "cannot be reached"
        return (
            f"{subject} are not cached and the hub {reason}, so that the content of {weights.revision} is not known; "
            f"allowed: weights whose content is known; {remedy}"
        )
    if not is_online:
        return f"{subject} are not cached and the hub cannot be reached; allowed: weights that can be read; {remedy}"
    if content is None or hub.revision_of(weights, content) is not None:
        return ""
    return (
        f"{subject} are not cached with the content that this storage has recorded (SHA-256 {content.sha256}), and the "
        "hub has another one; allowed: the recorded content; restore it in the cache, or use another --storage for the "
        "present one"
    )


def changed_weights(plan: Plan) -> Iterator[str]:
    """Yield a message for published weights of which the cache has another content than the storage has recorded."""
    for weights, content in plan.contents.items():
        cached = None if weights.is_identified_by_commit else cached_content(weights)
        if cached is not None and content is not None and cached.sha256 != content.sha256:
            yield (
                f"{weights} has changed since it was first used: stages start from the content of commit "
                f"{content.commit}, as before; use another --storage for that of {cached.commit}"
            )


def pretrained_weights(plan: Plan, pending: PendingStages, store: Store) -> list[NamedWeights]:
    """Return backbone and name of the published weights from which pending stages and candidates start."""
    nodes = [plan.nodes[digest] for digest in pending.stages]
    if plan.graph.is_searching:
        unplanned, finished = {**plan.graph.after_search, **plan.candidates}, store.finished()
        nodes += [node for digest, node in unplanned.items() if digest not in finished]
    names = (_named_weights(node) for node in nodes if node.parent is None)
    return sorted({name for name in names if name is not None})


def _named_weights(first: PlannedStage) -> NamedWeights | None:
    """Return the published weights from which the first stage of a chain starts."""
    name = first.step.backbone, str(first.initial_weights)
    return name if has_weights(*name) else None
