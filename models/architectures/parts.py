"""What an architecture's module makes."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Encoder, decoder and head; `decoder` is None where the network gives one answer an image."""

    encoder: nn.Module
    decoder: nn.Module | None
    head: nn.Module


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A network before it is built. `architecture` None: encoder, global average and a linear head.

    `skips=False` feeds the decoder zeros in place of every feature map but the deepest.
    """

    architecture: str | None
    backbone: str
    channels: int
    outputs: int
    skips: bool = True
