"""Tasks of consistency, with networks and batches that their formulas can be computed for."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.architectures.parts import NetworkParts
from models.network import Network
from models.task_settings.consistency import ConsistencySettings
from models.tasks import make_task
from models.tasks.base import Batch, Outputs
from models.tasks.consistency.base import Consistency

SIDE, CLASSES, IMAGES = 8, 3, 4
METHODS = ("mean_teacher", "fixmatch", "unimatch", "cross_pseudo")
Array = NDArray[np.float64]


class Encoder(nn.Sequential):
    """A feature map at the resolution of the images, and one at half of it."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        shallow = self[1](self[0](images)).relu()
        return [shallow, self[2](shallow).relu()]


class Decoder(nn.Conv2d):
    """A convolution of both maps."""

    def forward(self, features: list[Tensor]) -> Tensor:  # type: ignore[override]
        shallow, deep = features
        return super().forward(torch.cat([shallow, nn.functional.interpolate(deep, scale_factor=2.0)], dim=1)).relu()


def network(seed: int = 0) -> Network:
    """Return a network with batch norm whose predictions differ from pixel to pixel."""
    torch.manual_seed(seed)
    head = nn.Conv2d(10, CLASSES, 1)
    nn.init.normal_(head.weight, std=2.0)
    parts = NetworkParts(encoder=Encoder(), decoder=Decoder(14, 10, 3, padding=1), head=head)
    return Network(parts, mean=[0.5], std=[0.25], stages=[["0.weight"], ["2.weight"]])


def task(method: str, *, exclusive: bool = True, loss: dict[str, float] | None = None, **block: object) -> Consistency:
    """Return a task of three classes, the background included if they are exclusive."""
    settings = ConsistencySettings.model_validate(
        {"loss": loss or {"dice": 1.0}, "consistency": {"method": method, **block}}
    )
    consistency = make_task(settings, Outputs(names=("a", "b", "c")[: CLASSES - exclusive], exclusive=exclusive))
    assert isinstance(consistency, Consistency)
    return consistency


def companions(consistency: Consistency, first: Network, seed: int = 9) -> dict[str, nn.Module]:
    """Create the companions of a task; a second network has the weights of `network(seed)`."""
    return {name: companion.module for name, companion in consistency.companions(first, lambda: network(seed)).items()}


def batch(
    consistency: Consistency,
    *,
    update: int = 0,
    updates: int = 0,
    exclusive: bool = True,
    seed: int = 5,
    ignored: int = 0,
) -> Batch:
    """Return labelled images, and as many views of images without masks as the task takes.

    Strong views are random images; half of the images have pasted regions in them. `ignored` rows of each mask have
    no label.
    """
    generator = torch.Generator().manual_seed(seed)
    block = consistency.block
    target = torch.randint(0, CLASSES, (IMAGES, SIDE, SIDE), generator=generator).byte()
    target[:, :ignored] = 255
    if not exclusive:
        target = (torch.rand(IMAGES, CLASSES, SIDE, SIDE, generator=generator) > 0.5).byte()
    views = tuple(torch.rand(IMAGES, 1, SIDE, SIDE, generator=generator) for _ in range(block.views))
    pasted = torch.rand(IMAGES, block.strong_views, SIDE, SIDE, generator=generator) > 0.5
    pasted[::2] = False
    return Batch(
        images=torch.rand(IMAGES, 1, SIDE, SIDE, generator=generator), target=target, update=update, updates=updates,
        unlabelled=views[0], unlabelled_views=views, pasted=pasted if block.cutmix else None,
        unlabelled_keys=range(100, 100 + IMAGES),
    )  # fmt: skip


def training_logits(net: Network, images: Tensor) -> Tensor:
    """Return the logits in training mode, without a change of the statistics of the network."""
    return copy.deepcopy(net).train()(images)  # type: ignore[no-any-return]


def evaluation_logits(net: Network, images: Tensor) -> Tensor:
    """Return the logits in evaluation mode."""
    return copy.deepcopy(net).eval()(images)  # type: ignore[no-any-return]


def probabilities(logits: Tensor, *, exclusive: bool) -> Array:
    """Return the probabilities of logits, computed by numpy."""
    values = logits.detach().double().numpy()
    if not exclusive:
        return np.asarray(1 / (1 + np.exp(-values)))
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def confident_cross_entropy(
    logits: Tensor, weak: Array, partner: Array, pasted: NDArray[np.bool_], *, exclusive: bool, confidence: float
) -> tuple[float, float]:
    """Return the loss of FixMatch and the share of confident entries, pixel by pixel.

    Args:
        logits: Those of the strong view (N, C, H, W).
        weak: Probabilities of the weak view.
        partner: Those of the weak view of the partner.
        pasted: The pixels (N, H, W) from the partner.
        exclusive: Whether classes are exclusive.
        confidence: The threshold.
    """
    predicted, total, confident, entries = probabilities(logits, exclusive=exclusive), 0.0, 0, 0
    for image, row, column in np.ndindex(IMAGES, SIDE, SIDE):
        source = partner if pasted[image, row, column] else weak
        teacher, student = source[image, :, row, column], predicted[image, :, row, column]
        if exclusive:
            entries += 1
            if teacher.max() >= confidence:
                confident += 1
                total -= np.log(student[teacher.argmax()])
            continue
        for class_number in range(CLASSES):
            entries += 1
            is_present = teacher[class_number] >= 0.5
            if max(teacher[class_number], 1 - teacher[class_number]) >= confidence:
                confident += 1
                total -= np.log(student[class_number] if is_present else 1 - student[class_number])
    return total / entries, confident / entries
