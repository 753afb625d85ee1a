import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score, roc_auc_score
from torch import Tensor, nn

from models.losses.functions import losses
from models.settings import (
    ClassificationSettings,
    LocalisationSettings,
    ReconstructionSettings,
    SegmentationSettings,
    TaskSettings,
)
from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.task_settings.masking import MaskedReconstructionSettings
from models.tasks import make_task, tasks
from models.tasks.base import Batch, Outputs, Task
from models.tasks.localisation import box_iou
from models.tasks.segmentation import Segmentation

NAN = math.nan
KEYS = range(6)


class Fixed(nn.Module):
    """A network that answers what it was told, however it is asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, images: Tensor) -> Tensor:
        return self.output[: len(images)]


def answer(task: Task, output: Tensor, target: Tensor, shape: tuple[int, int] = (8, 8)) -> dict[str, float]:
    batch = Batch(images=torch.zeros(len(output), 1, *shape), target=target)
    with torch.no_grad():
        return dict(task.scores(task.statistics(Fixed(output).eval(), batch)))


def random_case(name: str) -> tuple[TaskSettings, Outputs, Tensor]:
    """Settings, outputs and a target of six 8 x 8 images."""
    generator = torch.Generator().manual_seed(5)
    masks = torch.rand(6, 2, 8, 8, generator=generator) < 0.4
    cases: dict[str, tuple[TaskSettings, Outputs, Tensor]] = {
        "reconstruction": (ReconstructionSettings(), Outputs(names=("grey",)), torch.rand(6, 1, 8, 8)),
        "masked": (MaskedReconstructionSettings(mask_size=2), Outputs(names=("grey",)), torch.rand(6, 1, 8, 8)),
        "distilled": (
            FeatureDistillationSettings(teacher=TeacherNetworkSettings(backbone="tu-test_vit")),
            Outputs(names=("grey",)),
            torch.rand(6, 1, 8, 8),
        ),
        "classification": (
            ClassificationSettings(),
            Outputs(names=("oedema", "effusion")),
            torch.tensor([[0, 1], [1, NAN], [NAN, NAN], [1, 0], [0, 1], [0, 0]]),
        ),
        "centre": (LocalisationSettings(), Outputs(names=("x", "y")), torch.rand(6, 2)),
        "box": (LocalisationSettings(target="box"), Outputs(names=("heart",)), torch.rand(6, 4) / 2),
        "overlapping": (SegmentationSettings(), Outputs(names=("lung", "opacity")), masks.to(torch.uint8)),
        "exclusive": (
            SegmentationSettings(loss={"cross_entropy": 1.0, "dice": 1.0}),
            Outputs(names=("lung", "heart"), exclusive=True),
            torch.randint(0, 3, (6, 8, 8), generator=generator, dtype=torch.uint8),
        ),
    }
    return cases[name]


def network(task: Task, name: str) -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Conv2d(1, task.head_channels(), 3, padding=1)
    dense.register_buffer("mean", torch.full((1, 1, 1, 1), 0.5))
    if name in ("classification", "centre", "box"):
        return nn.Sequential(dense, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return dense


CASES = ["reconstruction", "masked", "distilled", "classification", "centre", "box", "overlapping", "exclusive"]


@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_loss_and_every_score_is_named(name: str) -> None:
    settings, outputs, target = random_case(name)
    task = make_task(settings, outputs)
    net = network(task, name)
    batch = Batch(images=torch.rand(6, 1, 8, 8), target=target, keys=KEYS)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    first = task.loss(net, batch)
    for _ in range(20):
        optimizer.zero_grad()
        task.loss(net, batch).backward()
        optimizer.step()
    assert task.loss(net, batch) < first
    scores = task.scores(task.statistics(net.eval(), batch))
    assert {"loss", task.monitor} <= scores.keys()
    assert scores["loss"] == pytest.approx(task.loss(net, batch).item(), rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_statistics_of_batches_add_up_to_those_of_their_union(name: str) -> None:
    settings, outputs, target = random_case(name)
    if isinstance(settings, SegmentationSettings):  # overlap losses belong to their batch
        settings = settings.model_copy(update={"loss": {"binary_cross_entropy": 1.0}})
    task = make_task(settings, outputs)
    net = network(task, name).eval()
    images = torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        whole = task.statistics(net, Batch(images=images, target=target, keys=KEYS))
        parts = [
            task.statistics(net, Batch(images=images[part], target=target[part], keys=KEYS[part]))
            for part in (slice(0, 2), slice(2, 3), slice(3, 6))
        ]
    assert whole.dtype == torch.float64
    assert whole.dim() == 1
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_scores_of_nothing_are_undefined_not_zero(name: str) -> None:
    settings, outputs, target = random_case(name)
    task = make_task(settings, outputs)
    net = network(task, name).eval()
    sums = task.statistics(net, Batch(images=torch.rand(6, 1, 8, 8), target=target, keys=KEYS))
    assert all(math.isnan(value) for value in task.scores(torch.zeros_like(sums)).values())


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_outputs_are_scored_in_float32(name: str) -> None:
    settings, outputs, target = random_case(name)
    task = make_task(settings, outputs)
    net = network(task, name).bfloat16().eval()
    batch = Batch(images=torch.rand(6, 1, 8, 8).bfloat16(), target=target, keys=KEYS)
    assert task.loss(net, batch).dtype == torch.float32
    assert task.statistics(net, batch).dtype == torch.float64


def test_the_table_has_every_task_under_its_own_name() -> None:
    for name in CASES:
        settings, outputs, _ = random_case(name)
        expected = {**tasks, "segmentation": Segmentation}[settings.task]  # with `rest` it is another task
        assert type(make_task(settings, outputs)) is expected
        assert make_task(settings, outputs).trains == settings.trains


def test_psnr_is_its_formula_over_all_pixels() -> None:
    task = make_task(ReconstructionSettings(), Outputs(names=("grey",)))
    output, images = torch.rand(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    expected = -10 * np.log10(np.mean((output - images).numpy() ** 2))
    assert answer(task, output, images)["psnr"] == pytest.approx(expected, rel=1e-5)


def test_the_input_is_corrupted_in_training_only_and_by_the_global_generator() -> None:
    class Asked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            self.seen = images
            return images

    task = make_task(ReconstructionSettings(corrupt=0.1), Outputs(names=("grey",)))
    images = torch.full((4, 1, 64, 64), 0.5)
    net, batch = Asked(), Batch(images=images, target=images)
    torch.manual_seed(7)
    task.loss(net, batch)
    first = net.seen
    assert (first - images).std().item() == pytest.approx(0.1, rel=0.05)
    torch.manual_seed(7)
    task.loss(net, batch)
    assert torch.equal(net.seen, first)
    task.loss(net.eval(), batch)
    assert torch.equal(net.seen, images)


def classification(labels: int) -> Task:
    return make_task(ClassificationSettings(), Outputs(names=tuple(f"label {i}" for i in range(labels))))


def test_classification_scores_are_those_of_sklearn_on_known_entries() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(400, 3, generator=generator)
    target = ((torch.rand(400, 3, generator=generator) + 0.2 * logits) > 0.5).float()
    target[torch.rand(400, 3, generator=generator) < 0.3] = NAN
    known = ~target.isnan()
    scores = answer(classification(3), logits, target)
    aucs = [roc_auc_score(target[known[:, i], i], logits[known[:, i], i]) for i in range(3)]
    assert scores["auc"] == pytest.approx(np.mean(aucs), abs=0.003)
    assert scores["accuracy"] == accuracy_score(target[known], logits[known] >= 0)
    expected = nn.functional.binary_cross_entropy_with_logits(logits[known], target[known])
    assert scores["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_label_with_one_outcome_leaves_the_auc_to_the_others() -> None:
    logits = torch.tensor([[3.0, 1.0], [-3.0, 2.0]])
    assert answer(classification(2), logits, torch.tensor([[1.0, 1.0], [0.0, 1.0]]))["auc"] == 1.0


def test_a_batch_without_known_labels_costs_nothing_and_still_has_gradients() -> None:
    net = Fixed(torch.randn(2, 3))
    batch = Batch(images=torch.zeros(2, 1, 8, 8), target=torch.full((2, 3), NAN))
    loss = classification(3).loss(net, batch)
    loss.backward()
    assert loss.item() == 0
    assert net.output.grad is not None
    assert torch.equal(net.output.grad, torch.zeros(2, 3))


def test_distance_is_euclidean_in_image_sides_and_missing_points_are_left_out() -> None:
    task = make_task(LocalisationSettings(), Outputs(names=("x", "y")))
    output = torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])
    target = torch.tensor([[0.4, 0.5], [0.5, 0.5], [NAN, NAN]])
    scores = answer(task, output, target)
    assert scores["distance"] == pytest.approx((0.5 + 0.0) / 2)
    assert scores["loss"] == pytest.approx((0.3**2 + 0.4**2) / 4)


@pytest.mark.parametrize("target_kind", ["centre", "box"])
def test_errors_in_a_rectangle_are_in_its_pixels(target_kind: Literal["centre", "box"]) -> None:
    task = make_task(LocalisationSettings(target=target_kind), Outputs(names=("heart",)))
    height, width = shape = (20, 50)
    sides = torch.tensor([width, height] * (task.head_channels() // 2))
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.rand(6, task.head_channels(), generator=generator) / 2 for _ in range(2))
    scores = answer(task, output, target, shape)
    errors = (output - target) * sides
    offset = errors if target_kind == "centre" else errors[:, :2] + errors[:, 2:] / 2
    assert scores["mse_pixels"] == pytest.approx(errors.square().mean().item(), rel=1e-5)
    assert scores["distance_pixels"] == pytest.approx(offset.norm(dim=1).mean().item(), rel=1e-5)
    assert scores["distance"] == pytest.approx(scores["distance_pixels"] / width)


def test_a_box_is_scored_by_the_distance_of_centres_and_by_overlap() -> None:
    task = make_task(LocalisationSettings(target="box"), Outputs(names=("heart",)))
    assert task.head_channels() == 4
    output = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, -0.1, 0.2]])
    target = torch.tensor([[0.2, 0.0, 0.4, 0.4], [0.5, 0.5, 0.1, 0.2]])
    scores = answer(task, output, target)
    assert scores["distance"] == pytest.approx((0.2 + 0.1) / 2)
    assert scores["mean_iou"] == pytest.approx((0.08 / 0.24 + 0) / 2)


def test_box_overlap_is_that_of_filled_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 30, (50, 2, 2), generator=generator)
    sizes = torch.randint(1, 30, (50, 2, 2), generator=generator)
    boxes = torch.cat([corners, sizes], dim=2)
    found = box_iou(boxes[:, 0] / 64.0, boxes[:, 1] / 64.0)
    for pair, value in zip(boxes, found, strict=True):
        masks = torch.zeros(2, 64, 64, dtype=torch.bool)
        for mask, (x, y, width, height) in zip(masks, pair.tolist(), strict=True):
            mask[y : y + height, x : x + width] = True
        assert value.item() == pytest.approx(((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()).item())


def segmentation(exclusive: bool, settings: Mapping[str, Any] = {}) -> Segmentation:
    loss = {"cross_entropy": 1.0} if exclusive else {"binary_cross_entropy": 1.0}
    outputs = Outputs(names=("lung", "heart", "opacity"), exclusive=exclusive)
    return Segmentation(SegmentationSettings(**{"loss": loss, **settings}), outputs)


def test_probabilities_of_exclusive_classes_sum_to_one_with_a_background() -> None:
    task = segmentation(exclusive=True)
    assert task.head_channels() == 4
    sums = task.probabilities(torch.randn(2, 4, 8, 8)).sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(2, 8, 8))
    assert segmentation(exclusive=False).head_channels() == 3


@pytest.mark.parametrize("exclusive", [False, True])
def test_mean_iou_is_that_of_sklearn_over_the_classes_in_the_truth(exclusive: bool) -> None:
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(4, 3 + exclusive, 8, 8, generator=generator)
    if exclusive:
        target = torch.randint(0, 3, (4, 8, 8), generator=generator, dtype=torch.uint8)
        truth = torch.stack([target == k for k in (1, 2, 3)], dim=1)
        predicted = torch.stack([logits.argmax(dim=1) == k for k in (1, 2, 3)], dim=1)
    else:
        truth = torch.rand(4, 3, 8, 8, generator=generator) < 0.5
        truth[:, 2] = False
        target, predicted = truth.to(torch.uint8), logits > 0
    scores = answer(segmentation(exclusive), logits, target)
    ious = [jaccard_score(truth[:, k].flatten(), predicted[:, k].flatten()) for k in (0, 1)]
    assert [scores["iou/lung"], scores["iou/heart"]] == pytest.approx(ious)
    assert math.isnan(scores["iou/opacity"])
    assert scores["mean_iou"] == pytest.approx(np.mean(ious))
    assert scores["dice"] == pytest.approx(np.mean([2 * iou / (1 + iou) for iou in ious]))


@pytest.mark.parametrize("exclusive", [False, True])
def test_class_weights_reach_the_loss_by_name(exclusive: bool) -> None:
    logits = torch.randn(2, 3 + exclusive, 8, 8)
    target = torch.randint(0, 4, (2, 8, 8)) if exclusive else torch.randint(0, 2, (2, 3, 8, 8))
    batch = Batch(images=torch.zeros(2, 1, 8, 8), target=target)
    found = segmentation(exclusive, {"class_weights": {"heart": 5.0}}).loss(Fixed(logits), batch)
    weights = torch.tensor([1.0, 1.0, 5.0, 1.0] if exclusive else [1.0, 5.0, 1.0])
    loss = losses["cross_entropy" if exclusive else "binary_cross_entropy"]
    expected = loss(logits, target, exclusive=exclusive, class_weights=weights)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("exclusive", "settings", "message"),
    [
        (False, {"loss": {"cross_entropy": 1.0}}, "cross_entropy does not fit mask of overlapping classes"),
        (True, {"loss": {"mse": 1.0}}, "mse does not fit mask of exclusive classes; allowed: cross_entropy"),
        (True, {"class_weights": {"lungs": 1.0}}, "unknown class lungs; allowed: background, lung"),
    ],
)
def test_settings_that_do_not_fit_the_classes_are_refused(
    exclusive: bool, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        segmentation(exclusive, settings)
