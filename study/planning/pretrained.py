"""Published weights of arms and teachers in a plan: their contents, and which of them are not available."""

from collections.abc import Iterable, Iterator

from models.catalog import hub
from models.catalog.hub_cache import cached_content, cached_file, verifiable_content
from models.catalog.published import Content, PublishedWeights
from models.catalog.registry import has_weights, published_weights
from study.errors import Problem
from study.planning.arms import Arm
from study.planning.checks.weights_checks import initial_path
from study.planning.graph import Plan, PlannedStage, lineage
from study.planning.pending import PendingStages
from study.planning.teachers import teacher_of, weights_by_backbone
from study.store.pretrained import recorded_content, stored_weights
from study.store.store import Store

OTHER_CONTENT = "the hub has another one"
NamedWeights = tuple[str, str]
"""Backbone, and name of its published weights."""


def contents_of(arms: Iterable[Arm], store: Store | None) -> dict[PublishedWeights, Content | None]:
    """Return the content of all published weights that arms and teachers start from, None where it is not known.

    It is what the storage has recorded, else what the table of backbones states, what is in the local cache, or, for
    revisions that may change, what the hub has now.
    """
    names = sorted((backbone, str(weights)) for backbone, weights in weights_by_backbone(arms))
    weights = dict.fromkeys(published_weights(*name) for name in names if has_weights(*name))
    contents = {
        published: (recorded_content(store, published) if store is not None else None)
        or published.stated
        or verifiable_content(published)
        for published in weights
    }
    unknown = [published for published, content in contents.items() if _is_unknown(published, content)]
    return contents | (hub.upstream_contents(unknown) if unknown and hub.reachable() else {})


def _is_unknown(weights: PublishedWeights, content: Content | None) -> bool:
    """Return whether stages that start from these weights have no digest yet."""
    return content is None and not weights.is_identified_by_commit


def unresolved_stages(plan: Plan) -> dict[NamedWeights, list[str]]:
    """Return the digests of all stages that depend on published weights whose content is not known."""
    nodes = {**plan.nodes, **plan.graph.after_search}
    stages: dict[NamedWeights, list[str]] = {}
    for digest in nodes:
        needed = [nodes[stage] for stage in lineage(nodes.__getitem__, [digest])]
        for name in {name: None for node in needed for _, name in _uses(plan, node)}:
            if _is_unknown(weights := published_weights(*name), plan.contents.get(weights)):
                stages.setdefault(name, []).append(digest)
    return stages


def missing_weights(plan: Plan, pending: PendingStages, store: Store) -> list[Problem]:
    """Return a problem for each use of published weights by pending stages that are not available."""
    uses = sorted({use for node in _needed(plan, pending, store) for use in _uses(plan, node)})
    missing = {}
    for name in sorted({name for _, name in uses}):
        weights = published_weights(*name)
        content = plan.contents.get(weights)
        if _is_unknown(weights, content) or not _is_at_hand(weights, content, store):
            missing[name] = weights, content
    is_online = bool(missing) and hub.reachable()
    messages = {name: _message(*name, *values, is_online=is_online) for name, values in missing.items()}
    return [Problem(path=path, message=messages[name]) for path, name in uses if messages.get(name)]


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
    reason = _hub_problem(weights, content) if is_online else "the hub cannot be reached"
    if reason == OTHER_CONTENT and content is not None:
        return (
            f"{subject} are not cached with the content that this storage has recorded (SHA-256 {content.sha256}), and "
            f"{reason}; allowed: the recorded content; restore it in the cache, or use another --storage for the "
            "present one"
        )
    return f"{subject} are not cached and {reason}; allowed: weights that can be read; {remedy}" if reason else ""


def _hub_problem(weights: PublishedWeights, content: Content | None) -> str:
    """Return why the hub does not give weights with a content; empty if it does."""
    try:
        if content is None:
            return "" if hub.has_file(weights) else "the hub does not give them"
        return OTHER_CONTENT if hub.revision_of(weights, content) is None else ""
    except hub.HubUnavailable:
        return "the hub does not answer"


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
    """Return backbone and name of the published weights that pending stages, candidates and their teachers need."""
    return sorted({name for node in _needed(plan, pending, store) for _, name in _uses(plan, node)})


def weights_of_stages(plan: Plan, digests: Iterable[str]) -> list[NamedWeights]:
    """Return backbone and name of the published weights from which stages and their teachers start."""
    return sorted({name for digest in digests for _, name in _uses(plan, plan.node(digest))})


def _needed(plan: Plan, pending: PendingStages, store: Store) -> list[PlannedStage]:
    """Return the stages that a run may train."""
    nodes = [plan.nodes[digest] for digest in pending.stages]
    if plan.graph.is_searching:
        unplanned, finished = {**plan.graph.after_search, **plan.candidates}, store.finished()
        nodes += [node for digest, node in unplanned.items() if digest not in finished]
    return nodes


def _uses(plan: Plan, node: PlannedStage) -> Iterator[tuple[str, NamedWeights]]:
    """Yield the published weights from which a stage and its teacher start, with their path in the study file."""
    step, teacher = node.step, teacher_of(node.step.settings)
    if node.carried_from is None and has_weights(*(name := (step.backbone, str(node.initial_weights)))):
        yield initial_path(plan.spec.compare, node.initial_weights), name
    if teacher is not None and has_weights(*(name := (teacher.backbone, str(teacher.initial_weights)))):
        yield f"stages.{step.stage}.teacher.initial_weights", name
