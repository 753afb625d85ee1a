"""Decoder of masked autoencoders (He et al. 2022): a transformer that predicts the pixels of hidden patches."""

import torch
from torch import Tensor, nn

from models.encoders.vision import timm
from models.task_settings.masking import HEAD_WIDTH

INITIAL_STD = 0.02
WAVELENGTH = 10_000.0
EPS = 1e-6
"""Added to the variance by all normalisation layers, as in the code of He et al."""

Grid = tuple[int, int]
"""Rows and columns of the patches of an image."""


class PatchDecoder(nn.Module):
    """Normalises and projects the visible tokens, adds mask tokens and positions, and predicts pixels of all patches.

    Args:
        inputs: Channels of the tokens.
        outputs: Channels of the images.
        patch: Side of the patches in pixels.
        width: Channels within the decoder, a multiple of 32.
        depth: Number of transformer blocks.
    """

    def __init__(self, inputs: int, outputs: int, *, patch: int, width: int, depth: int) -> None:
        super().__init__()
        self.patch, self.outputs = patch, outputs
        self.norm = nn.LayerNorm(inputs, eps=EPS)  # the encoder's last one, which segmentation does not use
        self.embedding = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        block = timm.models.vision_transformer.Block
        self.blocks = nn.Sequential(*(block(width, width // HEAD_WIDTH, qkv_bias=True) for _ in range(depth)))
        self.prediction = nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, outputs * patch**2))
        nn.init.normal_(self.mask_token, std=INITIAL_STD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, visible: Tensor, grid: Grid) -> Tensor:
        """Return images (N, outputs, rows x patch, columns x patch).

        Args:
            tokens: (N, prefix + n, inputs), prefix tokens before those of the visible patches.
            visible: Numbers (N, n) of these patches, row by row.
            grid: Rows and columns of all patches.
        """
        rows, columns = grid
        embedded = self.embedding(self.norm(tokens))
        prefix, shown = embedded.split([embedded.shape[1] - visible.shape[1], visible.shape[1]], dim=1)
        hidden = self.mask_token.to(shown.dtype).expand(len(shown), rows * columns, -1)
        patches = hidden.scatter(1, visible.unsqueeze(2).expand_as(shown), shown)
        patches = patches + position_embedding(grid, patches.shape[2]).to(patches)
        decoded = self.blocks(torch.cat([prefix, patches], dim=1))[:, prefix.shape[1] :]
        pixels: Tensor = self.prediction(decoded).view(-1, rows, columns, self.outputs, self.patch, self.patch)
        return pixels.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.outputs, rows * self.patch, columns * self.patch)


def position_embedding(grid: Grid, width: int) -> Tensor:
    """Return the fixed embedding (rows x columns, width) of positions.

    The first half of the channels are sines and cosines of the column, the second half those of the row, at
    wavelengths from 2 pi to 10,000 x 2 pi (Vaswani et al. 2017).
    """
    count = width // 4
    frequencies = WAVELENGTH ** -(torch.arange(count, dtype=torch.float64) / count)
    row, column = torch.meshgrid(*(torch.arange(length, dtype=torch.float64) for length in grid), indexing="ij")
    angles = [position.reshape(-1, 1) * frequencies for position in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()
