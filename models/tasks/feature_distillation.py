"""Feature distillation: a student regresses the features of a fixed teacher (Wei et al. 2022)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.architectures.layers import resized
from models.architectures.parts import Blueprint
from models.build import build
from models.catalog.registry import backbone as describe_backbone
from models.losses.functions import ratio
from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.tasks.base import Batch, Outputs, Task, low_score_message

BETA = 2.0
"""Error from which the smooth L1 loss is linear, as published."""
COLLAPSED = 0.1
"""Standard deviation relative to the teacher's below which predicted features count as equal."""
RANDOM_SEED = 0
"""Seed of a teacher with random weights, the same in all stages."""


class FeatureDistillation(Task):
    """Target: the deepest features (N, D, h, w) of the teacher, each position normalised to mean 0 and variance 1.

    The features of a plain vision transformer are those after its final normalisation, with its scale and shift, as
    published; transformers that normalise after pooling and encoders with several resolutions have none.
    The output of the network, a linear projection of the student's deepest feature map, is resized to h x w. The
    teacher is created with random weights; `teacher` is the network to load others into. Both networks normalise the
    images by their own statistics.
    """

    trains = FeatureDistillationSettings.trains
    monitor = "loss"
    minimise = True

    def __init__(self, settings: FeatureDistillationSettings, outputs: Outputs) -> None:
        self.settings = settings
        self.outputs = outputs
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            network = build(teacher_blueprint(settings.teacher, channels=len(outputs.names)))
            self.teacher = network.requires_grad_(False).eval()

    def head_channels(self) -> int:
        """Return the number of features of the teacher."""
        return describe_backbone(self.settings.teacher.backbone).channels[-1]

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the smooth L1 loss, a mean over the features of all workers."""
        predicted, target = self._features(network, batch)
        return _smooth_l1(predicted, target)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, positions and cosines, then of each feature and its square, predicted and true."""
        predicted, target = self._features(network, batch)
        positions = predicted.new_tensor(predicted.shape[0] * predicted.shape[2] * predicted.shape[3]).double()
        loss = _smooth_l1(predicted, target).double() * positions
        cosines = F.cosine_similarity(predicted, target, dim=1).double().sum()
        features = torch.stack([predicted, target]).double()
        sums = [features.sum(dim=(1, 3, 4)), features.square().sum(dim=(1, 3, 4))]
        return torch.cat([torch.stack([loss, positions, cosines]), torch.stack(sums).flatten()])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return loss, mean cosine similarity, and the standard deviation of features relative to the teacher's.

        The last is the root of the ratio of variances, which are means over features; 0 if the network predicts the
        same everywhere.
        """
        loss, positions, cosines = statistics[:3].tolist()
        if not positions:
            return dict.fromkeys(("loss", "cosine", "relative_std"), math.nan)
        total, squares = statistics[3:].view(2, 2, -1) / positions
        predicted, true = (squares - total.square()).clamp_min(0).mean(dim=1).tolist()
        return {
            "loss": loss / positions,
            "cosine": cosines / positions,
            "relative_std": math.sqrt(predicted / true) if true else math.nan,
        }

    def warning(self, scores: Mapping[str, float]) -> str | None:
        """Return a message if the predicted features hardly differ between positions and images."""
        return low_score_message(
            scores,
            "relative_std",
            COLLAPSED,
            subject="the predicted features are almost equal everywhere (collapse)",
            expected=f"above {COLLAPSED:g}",
            remedy="train longer or change optimizer.lr",
        )

    def _features(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return predicted and true features (N, D, h, w) in float32."""
        target = self._teacher_features(batch.images)
        return resized(network(batch.images).float(), *target.shape[-2:]), target

    @torch.no_grad()
    def _teacher_features(self, images: Tensor) -> Tensor:
        self.teacher.to(images.device)
        height, width = images.shape[-2:]
        inputs = resized(images, *self.settings.teacher.shape((height, width)))
        features = self.teacher.encode(inputs).features[-1].float()
        return F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)


def teacher_blueprint(settings: TeacherNetworkSettings, *, channels: int) -> Blueprint:
    """Return the blueprint of a teacher, whose head is not used."""
    return Blueprint(architecture=None, backbone=settings.backbone, channels=channels, outputs=1, final_norm=True)


def _smooth_l1(predicted: Tensor, target: Tensor) -> Tensor:
    cost = F.smooth_l1_loss(predicted, target, reduction="none", beta=BETA)
    return ratio(cost, torch.ones_like(cost))
