"""Identity of a stage on its data: the part of the digest that many stages share."""

from dataclasses import dataclass
from typing import Any

from datasets.source import Index
from datasets.targets import Target
from datasets.targets import names as output_names
from datasets.versions import ELASTIC, WEAK
from datasets.versions import VERSIONS as DATASETS
from models.catalog import registry
from models.settings import structure_of, upsampling_of
from models.task_settings.pseudo_labels import pseudo_labels_of
from models.task_settings.weak_labels import weak_kind_of, weak_values_of
from models.versions import PSEUDO_LABELS, WEAK_LABELS
from models.versions import VERSIONS as MODELS
from study.planning.arms import StageConfig
from study.planning.digest import FORMAT, digest, without_defaults

LOOP_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class StageIdentity:
    """A stage with the outputs that its data determines. Shared by the stages of all replicates."""

    step: StageConfig
    names: tuple[str, ...]
    exclusive: bool
    structure: str | None
    digest: str


_NOT_IN_SETTINGS: dict[str, Any] = {
    "recipe": True, "data": True, "seed": True, "architecture": True, "backbone": True, "image": True, "prepare": True,
    "threshold": True, "class_threshold": True, "tta": True, "postprocess": True,
    "upsampling": True, "adversarial": {"unlabelled"}, "augment": {"preset"}, "teacher": {"initial_weights"},
    "consistency": {"unlabelled": True, "strong": {"preset"}}, "rest": True, "weak": True,
    "pseudo_labels": {"unlabelled"},
}  # fmt: skip
"""Settings that enter the digest through fingerprint, node, step, scoring or other settings instead."""

ADDED_SETTINGS: dict[str, Any] = {
    "image.scale": 1.0,
    "image.spacing": None,
    "link.keep_dropout": False,
    "settings.adversarial.freeze_discriminator": False,
    "settings.adversarial.optimizer.alpha": 0.99,
    "settings.adversarial.unlabelled_only": False,
    "settings.adversarial.unlabelled_start": 0,
    "settings.adapt": "full",
    "settings.augment.blur": 0.0,
    "settings.augment.border": "constant",
    "settings.augment.copy_paste": 0.0,
    "settings.augment.cutmix": 0.0,
    "settings.augment.dropout": 0.0,
    "settings.augment.hue": 0.0,
    "settings.augment.low_resolution": 0.0,
    "settings.augment.quarter_turns": 0.0,
    "settings.augment.saturation": 0.0,
    "settings.augment.sharpness": 0.0,
    "settings.augment.vertical_flip": 0.0,
    "settings.adversarial.optimizer.betas": [0.9, 0.999],
    "settings.average.decay": 0.999,
    "settings.average.lr": None,
    "settings.average.name": "swa",
    "settings.deep_supervision": False,
    "settings.label_smoothing": 0.0,
    "settings.optimizer.alpha": 0.99,
    "settings.optimizer.betas": [0.9, 0.999],
    "settings.optimizer.encoder_lr_factor": 1.0,
    "settings.optimizer.layer_decay": 1.0,
    "settings.schedule.warmup": 0.0,
}
"""Settings that a later version added, as dotted paths into the digested values, with the value that stands for the
earlier behaviour. A setting with this value does not enter the digest, so that finished stages stay valid."""


def stage_identity(step: StageConfig, index: Index) -> StageIdentity:
    """Return the identity of a stage on its data."""
    target = step.settings.target
    structure = structure_of(step.settings)
    if target in ("centre", "box") and structure is None:
        structure = index.structures[0]
    names = _output_names(target, step.image.channels, index)
    exclusive = target == "mask" and not index.overlapping
    excluded = _NOT_IN_SETTINGS if step.image.fit == "patch" else _NOT_IN_SETTINGS | {"patch": True}
    key = digest(without_defaults({
        "format": FORMAT,
        "versions": {"datasets": _datasets_versions(step), "models": MODELS, "loop": LOOP_VERSION},
        "settings": step.settings.model_dump(mode="json", exclude=excluded),
        "upsampling": registry.upsampling(step.architecture, upsampling_of(step.settings)),
        "target": target,
        "image": step.image.model_dump(mode="json"),
        "architecture": step.architecture,
        "backbone": step.backbone,
        "outputs": {"names": names, "exclusive": exclusive, "structure": structure},
        "link": step.link.model_dump(mode="json", exclude={"stage"}),
        **_weak_labels(step),
        **_pseudo_labels(step),
    }, ADDED_SETTINGS))  # fmt: skip
    return StageIdentity(step=step, names=names, exclusive=exclusive, structure=structure, digest=key)


def _weak_labels(step: StageConfig) -> dict[str, Any]:
    """Return the settings of weak labels that have an effect; nothing without weak labels."""
    values = weak_values_of(step.settings)
    return {"rest": {"version": WEAK_LABELS, **values}} if values else {}


def _pseudo_labels(step: StageConfig) -> dict[str, Any]:
    """Return the version of pseudo-labels; nothing without pseudo-labels."""
    return {} if pseudo_labels_of(step.settings) is None else {"pseudo_labels": PSEUDO_LABELS}


def _datasets_versions(step: StageConfig) -> dict[str, int]:
    elastic = {"elastic": ELASTIC} if step.settings.augment.elastic else {}
    return DATASETS | elastic | ({"weak_labels": WEAK} if weak_kind_of(step.settings) is not None else {})


def _output_names(target: Target, channels: int, index: Index) -> tuple[str, ...]:
    """Return the names of the network's output channels."""
    match target:
        case "image":
            named = {1: ("grey",), 3: ("red", "green", "blue")}
            return named.get(channels) or tuple(f"channel {number + 1}" for number in range(channels))
        case "centre":
            return ("x", "y")
        case "box":
            return ("x", "y", "width", "height")
        case _:
            return output_names(index, target)
