"""Heads of networks without decoder, on the deepest feature map."""

from torch import Tensor, nn


class AverageHead(nn.Linear):
    """Global average pooling and a linear layer."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs) of (N, C, H, W)."""
        return super().forward(maps.mean(dim=(2, 3)))


class FlattenHead(nn.Linear):
    """Linear layer on the flattened feature map, C x H x W values (Hu et al.), which keeps positions."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs) of (N, C, H, W)."""
        return super().forward(maps.flatten(1))


class FeatureHead(nn.Conv2d):
    """Linear layer on each position of the deepest feature map."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 1)


class ShuffleHead(nn.Sequential):
    """Linear layer on each position of the deepest feature map, which predicts the pixels there (Xie et al. 2022).

    Args:
        channels: Channels of the map.
        outputs: Channels of the predicted images.
        stride: Side in pixels of the area of a position.
    """

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__(nn.Conv2d(channels, outputs * stride**2, 1), nn.PixelShuffle(stride))


class Perceptron(nn.Sequential):
    """Maps (N, inputs) to (N, outputs) by one hidden layer with batch norm and ReLU (Grill et al. 2020)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )


class ProjectionHead(Perceptron):
    """Global average pooling and a perceptron, for tasks that compare embeddings."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs) of (N, C, H, W)."""
        embeddings: Tensor = super().forward(maps.mean(dim=(2, 3)))  # type: ignore[no-untyped-call]
        return embeddings
