"""Checks of stages that learn from weak labels."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from datasets.augment_settings import PRESETS, AugmentSettings
from models.task_settings.weak_labels import WeakLabelBlock, weak_block_of, weak_kind_of
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.arms import Arm, StageConfig, follows_rest


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
