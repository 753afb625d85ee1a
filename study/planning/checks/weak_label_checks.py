"""Checks of stages that learn from weak labels or pseudo-labels."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from datasets.augment_settings import PRESETS, AugmentSettings
from models.task_settings.pseudo_labels import pseudo_labels_of
from models.task_settings.weak_labels import WeakLabelBlock, weak_block_of, weak_kind_of
from study.config.schema import StudySpec
from study.config.stages import MASK_TASKS, MaskStage
from study.errors import Problem
from study.planning.arms import Arm, StageConfig, follows_rest
from study.planning.dataset_view import DatasetView


def weak_label_problems(step: StageConfig) -> Iterator[Problem]:
    """Yield patches and augmentation that the weak labels of a stage do not allow."""
    kind, path = weak_kind_of(step.settings), f"stages.{step.stage}"
    if kind is not None and step.image.fit == "patch":
        message = (
            f"is {kind} with fit: patch; allowed: stretch or letterbox, as weak labels are those of whole images; "
            "change fit, set rest: none, or exclude the combination"
        )
        yield Problem(path=f"{path}.rest", message=message)
    if kind == "box":
        yield from _box_problems(f"{path}.augment", step.settings.augment)


def _box_problems(path: str, augment: AugmentSettings) -> Iterator[Problem]:
    """Yield augmentation that boxes do not follow."""
    if augment.elastic:
        is_of_preset = augment.preset is not None and PRESETS[augment.preset].get("elastic") == augment.elastic
        message = (
            f"is {augment.elastic:g}{f', of preset {augment.preset},' if is_of_preset else ''} with rest: box; "
            "allowed: 0, as the corners of a box do not tell how its sides bend; set it to 0, choose another rest, or "
            "exclude the combination"
        )
        yield Problem(path=f"{path}.elastic", message=message)
    moving = [name for name in ("rotate", "shear", "scale", "shift") if getattr(augment, name)]
    if augment.border == "reflect" and moving:
        message = (
            f"is reflect with {moving[0]} {getattr(augment, moving[0]):g} and rest: box; allowed: constant, as "
            "reflections of objects would lie outside of all boxes; set it to constant, choose another rest, or "
            "exclude the combination"
        )
        yield Problem(path=f"{path}.border", message=message)


def rest_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield stages whose own `rest` a factor `rest` would replace."""
    if spec.compare.rest is None:
        return
    chains = [[link.stage for link in links] for links in spec.pathways.values()]
    chains = [chain for chain in chains if spec.stages.keys() >= set(chain)]  # others are reported by name
    names = dict.fromkeys(name for chain in chains for name in chain if follows_rest(spec, name, target=chain[-1]))
    for name in names:
        rest = getattr(spec.stages[name], "rest", "none")
        if rest != "none":
            message = f"is {rest}, and compare.rest sets it too; allowed: one of them; remove one"
            yield Problem(path=f"stages.{name}.rest", message=message)


def unused_weak_problems(spec: StudySpec, arms: Iterable[Arm], incomplete: Collection[str] = ()) -> Iterator[Problem]:
    """Yield settings of weak labels that no arm uses.

    Args:
        spec: The study.
        arms: Its arms.
        incomplete: Stages of which some arms are missing, as they have other problems; they are not checked.
    """
    steps_by_setting: dict[tuple[str, str], list[StageConfig]] = {}
    for step in {id(step): step for arm in arms for step in arm.chain}.values():
        for key, default in WeakLabelBlock().model_dump().items():
            if step.stage not in incomplete and getattr(weak_block_of(step.settings), key) != default:
                steps_by_setting.setdefault((step.stage, key), []).append(step)
    reported = set()
    for (name, key), steps in steps_by_setting.items():
        message = unused_weak_message(key, steps)
        path = _path_of(spec, name, key)
        if message is not None and path not in reported:
            reported.add(path)
            yield Problem(path=path, message=message if path.endswith(key) else f"{key} {message}")


def _path_of(spec: StudySpec, stage: str, key: str) -> str:
    """Return the path that sets a setting of the weak labels of a stage: a factor, or the stage itself."""
    ends = {links[-1].stage for links in spec.pathways.values()}
    heads = (stage, "target") if stage in ends else (stage,)
    for head in heads:
        if f"{head}.weak.{key}" in spec.compare.factors:
            return f"compare.{head}.weak.{key}"
        if any(isinstance(value, Mapping) and key in value for value in spec.compare.factors.get(f"{head}.weak", ())):
            return f"compare.{head}.weak"
    return f"stages.{stage}.weak.{key}"


def unused_weak_message(key: str, steps: Sequence[StageConfig]) -> str | None:
    """Return why none of some stages uses a setting of weak labels, None if one does."""
    kinds = {kind for step in steps if (kind := weak_kind_of(step.settings)) is not None}
    users = WeakLabelBlock.users(key)
    if kinds.intersection(users):
        return None
    return (
        f"has no effect with rest: {', '.join(sorted(kinds)) or 'none'}; allowed: with {', '.join(users)}; remove it, "
        "or set rest"
    )


def pseudo_label_problems(path: str, before: StageConfig | None, step: StageConfig) -> Iterator[Problem]:
    """Yield why the stage before one with pseudo-labels cannot predict them, and other links that carry nothing."""
    has_labels = pseudo_labels_of(step.settings) is not None
    message = _teacher_message(before, step) if has_labels else None
    if message is not None:
        yield Problem(path=path, message=message)
    if before is not None and step.link.carry == "none" and not has_labels:
        message = (
            f"is none to {step.stage}, which then has nothing of {before.stage}; allowed: to a stage with task "
            "pseudo_labels; change carry, or remove the stage before it"
        )
        yield Problem(path=f"{path}.carry", message=message)


def confidence_warnings(arms: Iterable[Arm], views: Mapping[str, DatasetView]) -> list[str]:
    """Return a warning of each `pseudo_labels.confidence` that the most likely class of any pixel reaches."""
    warnings: dict[str, None] = {}
    for step in (step for arm in arms for step in arm.chain):
        block = pseudo_labels_of(step.settings)
        if block is not None and step.settings.data in views:
            index = views[step.settings.data].index
            least = 0.5 if index.overlapping else 1 / (len(index.classes) + 1)
            if 0 < block.confidence <= least:
                warnings[
                    f"stages.{step.stage}: pseudo_labels.confidence {block.confidence:g} ignores no pixel, as the most "
                    f"likely class has a probability of at least {least:.2g}; allowed: larger values, or 0; raise it"
                ] = None
    return list(warnings)


def _teacher_message(before: StageConfig | None, step: StageConfig) -> str | None:
    """Return why the stage before one with pseudo-labels cannot predict them, None if it can."""
    allowed = f"allowed: after a stage with task {', '.join(MASK_TASKS)} and target mask on the same data"
    if before is None:
        return f"is {step.stage}, whose images no stage before it labels; {allowed}; put one before it"
    settings = before.settings
    if not isinstance(settings, MaskStage) or settings.target != "mask":
        kind = f"a {settings.task} stage" + (f" with target {settings.target}" if settings.task in MASK_TASKS else "")
        return f"is {step.stage} after {before.stage}, {kind}, which predicts no masks; {allowed}; put one before it"
    if settings.data != step.settings.data:
        return (
            f"is {step.stage} on {step.settings.data} after {before.stage} on {settings.data}; {allowed}; change data"
        )
    if step.image.fit == "patch":
        return (
            f"is {step.stage} with fit: patch; allowed: stretch or letterbox, as pseudo-labels are those of whole "
            "images; change fit"
        )
    if step.image != before.image:
        own, other = step.image.model_dump(), before.image.model_dump()
        name = next(name for name, value in own.items() if value != other[name])
        return (
            f"is {step.stage} with other image settings ({name}) than {before.stage}, which labels its images; "
            f"allowed: the same; remove image and prepare of {step.stage}, or set them in both"
        )
    return None
