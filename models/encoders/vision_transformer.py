"""Plain vision transformers: features of four depths, all at the same stride."""

from torch import Tensor
from torch.nn.functional import interpolate

from models.encoders.vision import smp


class VisionTransformerEncoder(smp.encoders.TimmViTEncoder):  # type: ignore[misc]
    """Returns prefix tokens (N, tokens, C), if the model has any, then as many maps (N, C, H, W).

    All encoders return one list with the deepest map last. Images whose sides are no multiples of the patch are resized
    to the nearest ones.
    """

    is_plain_transformer = True

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return tokens and feature maps, each from the shallowest to the deepest."""
        height, width = (max(1, round(side / self.output_stride)) * self.output_stride for side in images.shape[-2:])
        if images.shape[-2:] != (height, width):
            images = interpolate(images, (height, width), mode="bilinear")
        features, tokens = super().forward(images)
        return [*(token for token in tokens if token is not None), *features]
