"""Heads of networks with one output per image: linear layers on the deepest feature map."""

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
