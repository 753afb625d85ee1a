"""Feature distillation compared with its formulas."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.architectures.parts import Blueprint
from models.build import build
from models.encoders.vision import timm
from models.network import Network
from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.tasks.base import Batch, Outputs
from models.tasks.feature_distillation import FeatureDistillation

TEACHERS = ["tu-test_vit", "tu-test_vit3", "tu-lcnet_050"]


class Fixed(nn.Module):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, images: Tensor) -> Tensor:
        return self.output


def distillation(backbone: str = "tu-test_vit", size: int | None = None, channels: int = 1) -> FeatureDistillation:
    settings = FeatureDistillationSettings(teacher=TeacherNetworkSettings(backbone=backbone, size=size))
    return FeatureDistillation(settings, Outputs(names=("grey",) if channels == 1 else ("red", "green", "blue")))


def student(task: FeatureDistillation) -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=None, backbone="tu-test_vit2", channels=1, outputs=task.head_channels(),
                           head="features"))  # fmt: skip


def targets(task: FeatureDistillation, images: Tensor) -> np.ndarray:  # type: ignore[type-arg]
    """The teacher's deepest features, normalised at each position."""
    teacher = task.teacher
    with torch.no_grad():
        features = teacher.encoder((images - teacher.mean) / teacher.std)[-1].double().numpy()
    mean, variance = features.mean(axis=1, keepdims=True), features.var(axis=1, keepdims=True)
    return np.asarray((features - mean) / np.sqrt(variance + 1e-5))


@pytest.mark.parametrize("backbone", TEACHERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_is_smooth_l1_on_normalised_features(backbone: str, channels: int) -> None:
    task, images = distillation(backbone, channels=channels), torch.rand(2, channels, 64, 96)
    truth = targets(task, images)
    output = 3 * torch.randn(truth.shape, dtype=torch.float32)
    error = np.abs(output.numpy() - truth)
    expected = np.where(error < 2, error**2 / 4, error - 1).mean()
    loss = task.loss(Fixed(output), Batch(images=images, target=images))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backbone", ["tu-test_vit", "tu-test_vit3"])
def test_the_target_is_computed_from_the_output_of_the_teacher_after_its_final_normalisation(backbone: str) -> None:
    task, images = distillation(backbone, channels=3), torch.rand(2, 3, 160, 160)
    reference = timm.create_model(backbone.removeprefix("tu-")).eval()
    torch.manual_seed(3)
    for parameter in reference.norm.parameters():
        nn.init.uniform_(parameter, 0.2, 3)
    weights = reference.state_dict()
    encoder = task.teacher.encoder
    encoder.load_state_dict({name: weights[name.removeprefix("model.")] for name in encoder.state_dict()})
    with torch.no_grad():
        tokens = reference.forward_features((images - task.teacher.mean) / task.teacher.std)
        patches = tokens[:, reference.num_prefix_tokens :].double().numpy()
    mean, variance = patches.mean(axis=2, keepdims=True), patches.var(axis=2, keepdims=True)
    truth = ((patches - mean) / np.sqrt(variance + 1e-5)).transpose(0, 2, 1).reshape(2, -1, 10, 10)
    scores = task.scores(task.statistics(Fixed(torch.from_numpy(truth).float()), Batch(images=images, target=images)))
    assert scores["loss"] == pytest.approx(0, abs=1e-9)
    assert scores["cosine"] == pytest.approx(1, abs=1e-6)


def test_the_projection_is_resized_to_the_grid_of_the_teacher() -> None:
    task, images = distillation(), torch.rand(2, 1, 64, 96)
    coarse = torch.randn(2, task.head_channels(), 2, 3)
    fine = F.interpolate(coarse, (4, 6), mode="bilinear")
    first, second = (task.loss(Fixed(output), Batch(images=images, target=images)) for output in (coarse, fine))
    torch.testing.assert_close(first, second)


def test_the_teacher_processes_images_of_its_size() -> None:
    images = torch.rand(2, 1, 64, 64)
    small, large = distillation(), distillation(size=96)
    output = torch.randn(2, small.head_channels(), 6, 6)
    enlarged = F.interpolate(images, (96, 96), mode="bilinear")
    expected = small.loss(Fixed(output), Batch(images=enlarged, target=enlarged))
    torch.testing.assert_close(large.loss(Fixed(output), Batch(images=images, target=images)), expected)


def test_scores_equal_their_formulas() -> None:
    task, images = distillation(), torch.rand(3, 1, 64, 64)
    truth = targets(task, images)
    output = torch.from_numpy(0.5 * truth + 0.1).float() + 0.2 * torch.randn(truth.shape)
    scores = task.scores(task.statistics(Fixed(output), Batch(images=images, target=images)))
    predicted = output.double().numpy()
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(truth, axis=1)
    assert scores["cosine"] == pytest.approx(((predicted * truth).sum(axis=1) / norms).mean(), rel=1e-4)
    ratio = predicted.var(axis=(0, 2, 3)).mean() / truth.var(axis=(0, 2, 3)).mean()
    assert scores["relative_std"] == pytest.approx(math.sqrt(ratio), rel=1e-4)


def test_a_constant_prediction_has_no_deviation() -> None:
    task, images = distillation(), torch.rand(3, 1, 64, 64)
    constant = torch.randn(1, task.head_channels(), 1, 1).expand(3, -1, 4, 4)
    scores = task.scores(task.statistics(Fixed(constant.clone()), Batch(images=images, target=images)))
    assert scores["relative_std"] == pytest.approx(0, abs=1e-3)
    assert "collapse" in str(task.warning(scores))


@pytest.mark.parametrize("scores", [{"relative_std": 0.6}, {"relative_std": math.nan}, {}])
def test_features_that_vary_or_are_not_scored_are_not_reported_as_collapsed(scores: dict[str, float]) -> None:
    assert distillation().warning(scores) is None


def test_a_random_teacher_is_deterministic_and_does_not_change_the_random_state() -> None:
    torch.manual_seed(1)
    first = distillation()
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(2)
    second = distillation()
    for name, tensor in first.teacher.state_dict().items():
        assert torch.equal(tensor, second.teacher.state_dict()[name])


def test_it_overfits_eight_images_and_does_not_change_the_teacher() -> None:
    task = distillation()
    network, before = student(task), copy.deepcopy(task.teacher.state_dict())
    columns = torch.arange(32) / 5
    images = torch.stack([0.5 + 0.5 * torch.sin(columns * (1 + 0.2 * n) + n).expand(1, 32, 32) for n in range(8)])
    batch = Batch(images=images, target=images)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(network.train(), batch).backward()
        optimizer.step()
    scores = task.scores(task.statistics(network, batch))
    assert scores["cosine"] > 0.9
    assert scores["relative_std"] > 0.7
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
