"""A plain vision transformer that processes visible patches only, with a decoder that predicts the hidden ones."""

import torch
from torch import Tensor

from models.architectures.patch_decoder import Grid, PatchDecoder
from models.encoders.vision_transformer import VisionTransformerEncoder
from models.network import EncodedImages, Network


class MaskedAutoencoder(Network):
    """Maps images (N, channels, H, W) in 0..1 to predicted pixels (N, channels, rows x patch, columns x patch).

    The encoder has the parameters that it has in other networks, so that its weights can be carried.
    """

    encoder: VisionTransformerEncoder
    head: PatchDecoder

    @property
    def patch(self) -> int:
        """Return the side of the patches in pixels."""
        return self.head.patch

    def grid(self, images: Tensor) -> Grid:
        """Return rows and columns of the patches of images (N, channels, H, W)."""
        return self.encoder.grid(images)

    def forward(self, images: Tensor | EncodedImages, *, deep: bool = False, visible: Tensor | None = None) -> Tensor:
        """Return the predicted pixels of all patches.

        Args:
            images: (N, channels, H, W) in 0..1.
            deep: Not supported.
            visible: Numbers (N, n) of the patches that the encoder processes, row by row; None: all.
        """
        assert isinstance(images, Tensor), "the encoder processes visible patches only"
        if deep:
            raise ValueError("a masked autoencoder has no auxiliary heads; allowed: deep=False; leave it out")
        grid = self.grid(images)
        if visible is None:
            visible = torch.arange(grid[0] * grid[1], device=images.device).expand(len(images), -1)
        tokens = self.encoder.visible_tokens((images - self.mean) / self.std, visible)
        return self.head(tokens, visible, grid)  # type: ignore[no-any-return]
