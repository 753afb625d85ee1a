"""Plain vision transformers: features of four depths, all at the same stride."""

from torch import Tensor
from torch.nn.functional import interpolate

from models.encoders.vision import smp


def whole_patches(side: int, patch: int) -> int:
    """Return the side in pixels to which images are resized: the nearest multiple of the patch."""
    return max(1, round(int(side) / patch)) * patch


class VisionTransformerEncoder(smp.encoders.TimmViTEncoder):  # type: ignore[misc]
    """Returns prefix tokens (N, tokens, C), if the model has any, then as many maps (N, C, H, W).

    All encoders return one list with the deepest map last. Images whose sides are no multiples of the patch are resized
    to the nearest ones.
    """

    is_plain_transformer = True

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return tokens and feature maps, each from the shallowest to the deepest."""
        height, width = (whole_patches(side, self.output_stride) for side in images.shape[-2:])
        if tuple(map(int, images.shape[-2:])) != (height, width):
            images = interpolate(images, (height, width), mode="bilinear")
        features, tokens = super().forward(images)
        return [*(token for token in tokens if token is not None), *features]
