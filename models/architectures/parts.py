"""Parts of a network and the blueprint they are built from."""

from dataclasses import dataclass

from torch import nn

from models.settings import HeadName, Upsampling


@dataclass(frozen=True, kw_only=True)
class NetworkParts:
    """Encoder, decoder and head; `decoder` is None for networks with one output per image."""

    encoder: nn.Module
    decoder: nn.Module | None
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Specification of a network.

    Without architecture, or without `trains_decoder`, it is an encoder with a linear head; an architecture that
    defines its encoder is given in that case too. `shape` is height and width of the training images, which determine
    the memory format and are required by `head: flatten`. `upsampling` None is the published method of the
    architecture. `skips=False` replaces all feature maps except the deepest by zeros.
    `deep_supervision` adds heads for maps within the decoder.
    """

    architecture: str | None
    backbone: str
    channels: int
    outputs: int
    skips: bool = True
    trains_decoder: bool = True
    head: HeadName = "average"
    shape: tuple[int, int] | None = None
    upsampling: Upsampling | None = None
    deep_supervision: bool = False

    @property
    def dense(self) -> bool:
        """Whether the output is per pixel rather than per image."""
        return self.architecture is not None and self.trains_decoder
