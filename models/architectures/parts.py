"""Parts of a network and the blueprint they are built from."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from models.settings import HeadName, Upsampling

EncoderHead = HeadName | Literal["projection", "features", "pixels", "patches"]
"""Head of a network without decoder: one output per image of the `average` or `flatten` of the deepest feature map, a
perceptron as `projection` of the average, a linear layer that predicts `features` or the `pixels` at each position, or
a transformer that predicts hidden `patches`."""


@dataclass(frozen=True, kw_only=True)
class NetworkParts:
    """Encoder, decoder and head; `decoder` is None for heads on the deepest feature map."""

    encoder: nn.Module
    decoder: nn.Module | None
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Specification of a network.

    Without architecture, or without `trains_decoder`, it is an encoder with a `head`; an architecture that defines its
    encoder is given in that case too. `shape` is height and width of the training images, which determine
    the memory format and are required by `head: flatten`. `upsampling` None is the published method of the
    architecture. `skips=False` replaces all feature maps except the deepest by zeros.
    `deep_supervision` adds heads for maps within the decoder. `head_width` and `head_depth` are channels and number of
    blocks of `head: patches`; `head_width` is also the width of the hidden layer of `head: projection`.
    `final_norm` applies the final normalisation of a plain vision transformer to the deepest feature map of a network
    without decoder; encoders with several resolutions have none.
    """

    architecture: str | None
    backbone: str
    channels: int
    outputs: int
    skips: bool = True
    trains_decoder: bool = True
    head: EncoderHead = "average"
    shape: tuple[int, int] | None = None
    upsampling: Upsampling | None = None
    deep_supervision: bool = False
    head_width: int = 0
    head_depth: int = 0
    final_norm: bool = False

    @property
    def dense(self) -> bool:
        """Whether the network has the architecture's decoder."""
        return self.architecture is not None and self.trains_decoder
