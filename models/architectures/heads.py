"""Heads of networks that give one answer an image: linear layers over the deepest feature map."""

from torch import Tensor, nn


class AverageHead(nn.Linear):
    """Linear layer of the global average (N, C) of a feature map."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs) of (N, C, H, W)."""
        return super().forward(maps.mean(dim=(2, 3)))


class FlattenHead(nn.Linear):
    """Linear layer of all values of a feature map, C x H x W of them (Hu et al.): positions count."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return (N, outputs) of (N, C, H, W)."""
        return super().forward(maps.flatten(1))
