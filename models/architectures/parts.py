"""What an architecture's module makes."""

from dataclasses import dataclass

from torch import nn

from models.settings import Head, Upsampling


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Encoder, decoder and head; `decoder` is None where the network gives one answer an image."""

    encoder: nn.Module
    decoder: nn.Module | None
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A network before it is built.

    Without architecture, or without `trains_decoder`, it is an encoder under a linear head; an architecture
    that brings its own encoder is named there too. `size` is the side of the images that it is to train on, by which
    its maps are laid out in memory; `head: flatten` needs it. `upsampling` None is the architecture's own.
    `skips=False` feeds the decoder zeros in place of every feature map but the deepest.
    """

    architecture: str | None
    backbone: str
    channels: int
    outputs: int
    skips: bool = True
    trains_decoder: bool = True
    head: Head = "average"
    size: int | None = None
    upsampling: Upsampling | None = None

    @property
    def dense(self) -> bool:
        """Whether every pixel gets an answer, not the image."""
        return self.architecture is not None and self.trains_decoder
