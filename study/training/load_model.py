"""A finished stage opened again from its record and its weights alone: no study file, no data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from datasets.settings import ImageSettings
from datasets.targets import Fit
from models.build import Blueprint, build
from models.network import Network
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from study.config.stages import Stage, StageSettings
from study.errors import ConfigError, Problem
from study.planning.blueprint import blueprint
from study.store.damage import DamagedStageError
from study.store.store import Store

_STAGE: TypeAdapter[Stage] = TypeAdapter(StageSettings)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network of masks with what its images and answers mean."""

    digest: str
    record: Mapping[str, Any]
    """What `stage.yaml` says."""
    image: ImageSettings
    task: Segmentation
    blueprint: Blueprint
    network: Network

    @property
    def outputs(self) -> Outputs:
        """Return the classes."""
        return self.task.outputs


def open_model(store: Store, digest: str, device: torch.device | str = "cpu") -> Model:
    """Open a finished stage of masks in evaluation mode. Raises `ConfigError`."""
    try:
        path = store.weights(digest)
    except DamagedStageError as error:
        remedy = "run its study again, with keep: {weights: all} where they are to stay"
        raise _refused(digest, f"{error.what}; allowed: a stage with its weights; {remedy}") from error
    record = store.record(digest)
    settings = _STAGE.validate_python(record["settings"])
    outputs = Outputs(names=tuple(record["outputs"]["names"]), exclusive=record["outputs"]["exclusive"])
    task = make_task(settings, outputs)
    if not isinstance(task, Segmentation):
        message = f"a {settings.task} stage answers no masks; allowed: a segmentation or adversarial stage; name one"
        raise _refused(digest, message)
    image = ImageSettings.model_validate(record["image"])
    plan = blueprint(settings, image, record["architecture"], record["backbone"], task.head_channels())
    network = build(plan)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        message = "its weights fit the network of another version; allowed: stages of this version; run the study again"
        raise _refused(digest, message) from error
    return Model(
        digest=digest, record=record, image=image, task=task, blueprint=plan, network=network.to(device).eval()
    )


def unfitted(square: Tensor, fit: Fit, height: int, width: int) -> Tensor:
    """Return probabilities (C, height, width) of an image from those of its square (C, S, S), borders cut off."""
    top, left, rows, columns = fit.inner
    inner = square[:, top : top + rows, left : left + columns]
    if inner.shape[-2:] == (height, width):
        return inner
    resized = torch.nn.functional.interpolate(inner[None], (height, width), mode="bilinear", align_corners=False)
    return resized[0].clamp_(0.0, 1.0)


def _refused(digest: str, message: str) -> ConfigError:
    return ConfigError([Problem(path=f"stage {digest[:8]}", message=message)], "study")
