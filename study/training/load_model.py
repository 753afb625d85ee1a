"""Load the network of a finished stage from its record and weights, without study file and data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from datasets.settings import FileChannels, ImageSettings, VolumeSettings
from datasets.targets import Fit
from models.build import Blueprint, build
from models.network import Network
from models.tasks import make_task
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from study.config.stages import MASK_TASKS, Stage, StageSettings
from study.errors import ConfigError, Problem
from study.planning.blueprint import blueprint
from study.store.damage import DamagedStageError
from study.store.store import Store

_STAGE: TypeAdapter[Stage] = TypeAdapter(StageSettings)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained segmentation network with its preprocessing and classes."""

    digest: str
    record: Mapping[str, Any]
    """The content of `stage.yaml`."""
    image: ImageSettings
    task: Segmentation
    blueprint: Blueprint
    network: Network

    @property
    def volumes(self) -> VolumeSettings:
        """Return how the volumes of the training data were sliced."""
        return VolumeSettings.model_validate(self.record["data"].get("volumes") or {})

    @property
    def channel_files(self) -> tuple[int, ...]:
        """Return the numbers of the files that an image of the training data consists of; empty for one file."""
        return tuple(self.record["data"].get("channel_files", ()))

    @property
    def file_channels(self) -> FileChannels | None:
        """Return the channels of files of four dimensions, None for other training data."""
        channels = self.record["data"].get("file_channels")
        return None if channels is None else FileChannels.model_validate(channels)

    @property
    def outputs(self) -> Outputs:
        """Return the classes."""
        return self.task.outputs


def open_model(store: Store, digest: str, device: torch.device | str = "cpu") -> Model:
    """Load a finished segmentation stage of the user in evaluation mode. Raises `ConfigError`."""
    try:
        store.weights(digest)
    except DamagedStageError as error:
        remedy = "run its study again, with keep: {weights: all} where they are to stay"
        raise _stage_error(digest, f"{error.problem}; allowed: a stage with its weights; {remedy}") from error
    return load_model(store, digest, device)


def load_model(store: Store, digest: str, device: torch.device | str = "cpu") -> Model:
    """Load a finished segmentation stage in evaluation mode.

    Raises:
        DamagedStageError: Its weights are missing or damaged.
        ConfigError: It has other outputs than masks, or its weights fit the network of another version.
    """
    path, record = store.weights(digest), store.record(digest)
    settings = _STAGE.validate_python(record["settings"])
    outputs = Outputs(names=tuple(record["outputs"]["names"]), exclusive=record["outputs"]["exclusive"])
    task = make_task(settings, outputs)
    if not isinstance(task, Segmentation):
        allowed = f"a stage with task {', '.join(MASK_TASKS)}"
        message = f"a {settings.task} stage answers no masks; allowed: {allowed}; name one"
        raise _stage_error(digest, message)
    image = ImageSettings.model_validate(record["image"])
    plan = blueprint(settings, image, record["architecture"], record["backbone"], task.head_channels())
    network = build(plan)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        message = "its weights fit the network of another version; allowed: stages of this version; run the study again"
        raise _stage_error(digest, message) from error
    return Model(
        digest=digest, record=record, image=image, task=task, blueprint=plan, network=network.to(device).eval()
    )


def without_padding(probabilities: Tensor, fit: Fit) -> Tensor:
    """Crop letterbox borders from probabilities (C, H, W)."""
    top, left, rows, columns = fit.inner
    return probabilities[:, top : top + rows, left : left + columns]


def _stage_error(digest: str, message: str) -> ConfigError:
    return ConfigError([Problem(path=f"stage {digest[:8]}", message=message)], "study")
