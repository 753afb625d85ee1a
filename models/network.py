"""A network of encoder, decoder and head, whose parts can be frozen and transferred."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from models.architectures.parts import NetworkParts


class Network(nn.Module):
    """Maps images (N, channels, S, S) in 0..1 to logits (N, outputs, S, S), or (N, outputs) without decoder.

    Images are normalised by `mean` and `std` (one value per channel) in the forward pass. `stages` are the names of
    the encoder parameters by stage.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        parts: NetworkParts,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        stages: Sequence[Sequence[str]],
        skips: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = parts.encoder
        self.decoder = parts.decoder
        self.head = parts.head
        self.skips = skips
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self._stages = tuple(frozenset(f"encoder.{name}" for name in names) for names in stages)
        self._unused: frozenset[str] = frozenset()
        self._frozen: frozenset[str] = frozenset()
        self._frozen_modules: tuple[nn.Module, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits. Raises `ValueError` for a training batch that is too small for batch norm."""
        try:
            images = (images - self.mean) / self.std
            return self._logits(self.encoder(images.contiguous(memory_format=torch.channels_last)))
        except ValueError as error:
            if self.training and len(images) == 1:
                raise ValueError(
                    "a training batch has 1 image; allowed: at least 2, as this network normalises a global "
                    "average over the batch; merge the image into another batch or raise batch_size"
                ) from error
            raise

    def _logits(self, features: list[Tensor]) -> Tensor:
        if self.decoder is not None and not self.skips:
            features = [torch.zeros_like(feature) for feature in features[:-1]] + features[-1:]
        decoded = features[-1] if self.decoder is None else self.decoder(features)
        logits: Tensor = self.head(decoded)
        return logits

    def freeze(self, parts: Sequence[str]) -> None:
        """Freeze parts, including batch-norm statistics: encoder, decoder, encoder.stage1 and so on.

        Stages are counted from the input; stage k is the k-th group of layers with a new feature map.
        """
        self._set_frozen(self._frozen.union(*map(self._names, parts)))

    def unfreeze(self, parts: Sequence[str]) -> None:
        """Unfreeze parts."""
        self._set_frozen(self._frozen.difference(*map(self._names, parts)))

    def mark_unused(self, names: frozenset[str]) -> None:
        """Exclude parameters that do not affect the logits from training."""
        self._unused = names
        self._set_frozen(self._frozen)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules except frozen ones, which stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def _names(self, part: str) -> frozenset[str]:
        groups = {f"encoder.stage{number}": names for number, names in enumerate(self._stages, start=1)}
        for name in ("encoder", "decoder"):
            members = frozenset(key for key, _ in self.named_parameters() if key.startswith(f"{name}."))
            groups |= {name: members} if members else {}
        if part not in groups:
            raise ValueError(f"freeze names {part}; allowed: {', '.join(sorted(groups))}; correct the name")
        return groups[part]

    def _set_frozen(self, frozen: frozenset[str]) -> None:
        for name, parameter in self.named_parameters():
            if (name in self._frozen | frozen) or name in self._unused:
                parameter.requires_grad_(name not in frozen | self._unused)
        self._frozen = frozen
        self._frozen_modules = tuple(_fully_frozen(self, "", frozen))
        self.train(self.training)


def _fully_frozen(module: nn.Module, prefix: str, frozen: frozenset[str]) -> list[nn.Module]:
    """Return the outermost modules with all parameters frozen."""
    modules = []
    for name, child in module.named_children():
        names = [f"{prefix}{name}.{key}" for key, _ in child.named_parameters()]
        if names and frozen.issuperset(names):
            modules.append(child)
        elif not frozen.isdisjoint(names):
            modules += _fully_frozen(child, f"{prefix}{name}.", frozen)
    return modules
