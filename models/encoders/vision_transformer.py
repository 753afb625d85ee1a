"""Plain vision transformers: features of four depths, all at the same stride."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.encoders.patches import patch_grid, whole_patches
from models.encoders.vision import smp


class VisionTransformerEncoder(smp.encoders.TimmViTEncoder):  # type: ignore[misc]
    """Returns prefix tokens (N, tokens, C), if the model has any, then as many maps (N, C, H, W).

    All encoders return one list with the deepest map last. Images whose sides are no multiples of the patch are resized
    to the nearest ones.
    """

    is_plain_transformer = True

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return tokens and feature maps, each from the shallowest to the deepest."""
        features, tokens = super().forward(self._in_whole_patches(images))
        return [*(token for token in tokens if token is not None), *features]

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Return rows and columns of the patches of images (N, channels, H, W)."""
        height, width = images.shape[-2:]
        return patch_grid((height, width), self.output_stride)

    def visible_tokens(self, images: Tensor, visible: Tensor) -> Tensor:
        """Return the output (N, prefix + n, C) of the last block, computed from n patches of each image.

        Requires a transformer that embeds patches independently (`models.catalog.masking`).

        Args:
            images: (N, channels, H, W).
            visible: Numbers (N, n) of the patches, row by row.
        """
        model = self.model
        tokens = model._pos_embed(model.patch_embed(self._in_whole_patches(images)))
        prefix, patches = tokens[:, : self._num_prefix_tokens], tokens[:, self._num_prefix_tokens :]
        shown = patches.gather(1, visible.unsqueeze(2).expand(-1, -1, patches.shape[2]))
        tokens = model.norm_pre(torch.cat([prefix, shown], dim=1))
        for block in model.blocks:
            tokens = block(tokens)
        return tokens  # type: ignore[no-any-return]

    def _in_whole_patches(self, images: Tensor) -> Tensor:
        height, width = (whole_patches(side, self.output_stride) for side in images.shape[-2:])
        if tuple(map(int, images.shape[-2:])) == (height, width):
            return images
        return interpolate(images, (height, width), mode="bilinear")


class NormalisedVisionTransformerEncoder(VisionTransformerEncoder):
    """Applies the final normalisation of the transformer to its deepest map, as `forward_features` of timm does.

    Some transformers have none, because they normalise after pooling.
    """

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return tokens and feature maps, each from the shallowest to the deepest, which is normalised."""
        *others, deepest = super().forward(images)
        norm = getattr(self.model, "norm", None)
        if isinstance(norm, nn.Module):
            deepest = norm(deepest.movedim(1, -1)).movedim(-1, 1)
        return [*others, deepest]
