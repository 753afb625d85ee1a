"""A network of encoder, decoder and head, whose parts can be frozen and transferred."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.architectures.heads import ShuffleHead
from models.architectures.parts import NetworkParts

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def next_multiple(side: int, multiple: int) -> int:
    """Return the smallest multiple that is at least `side`."""
    return -(-side // multiple) * multiple


class Margins(NamedTuple):
    """Pixels to add to images (N, C, H, W) at each border."""

    left: int
    right: int
    top: int
    bottom: int

    @classmethod
    def around(cls, images: Tensor, multiple: int) -> Self:
        """Return the margins that make both sides multiples, as equal as possible."""
        height, width = (next_multiple(side, multiple) - side for side in map(int, images.shape[-2:]))
        return cls(width // 2, width - width // 2, height // 2, height - height // 2)

    def pad(self, images: Tensor) -> Tensor:
        """Return the images with their reflection in the margins."""
        return F.pad(images, self, mode="reflect") if any(self) else images

    def crop(self, maps: Tensor) -> Tensor:
        """Return maps of padded images without the margins."""
        height, width = maps.shape[-2:]
        return maps[..., self.top : height - self.bottom, self.left : width - self.right] if any(self) else maps


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """The feature maps of images, from the finest on, and the margins that were added to the images."""

    features: list[Tensor]
    margins: Margins

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.features[-1])


class Network(nn.Module):
    """Maps images (N, channels, H, W) in 0..1 to logits (N, outputs, H, W), or those of the head without decoder.

    `encode` and `decode` are the two parts of the forward pass, which also takes images that are encoded already.

    The forward pass normalises images by `mean` and `std` (one value per channel) and reflects them at their borders up
    to the next multiple of `multiple` pixels; logits per pixel are cropped back. `stages` are the names of the encoder
    parameters by stage.
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
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = parts.encoder
        self.decoder = parts.decoder
        self.head = parts.head
        self.skips = skips
        self.multiple = multiple
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self._stages = tuple(frozenset(f"encoder.{name}" for name in names) for names in stages)
        self.auxiliary_heads: nn.ModuleList | None = None
        self._supervised: list[Tensor] | None = None
        self._unused: frozenset[str] = frozenset()
        self._fixed: frozenset[str] = frozenset()
        self._frozen: frozenset[str] = frozenset()
        self._frozen_modules: tuple[nn.Module, ...] = ()
        self._keeps_dropout = False

    def supervise(self, levels: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        """Add heads for the output maps of levels of the decoder, the finest first."""
        self.auxiliary_heads = nn.ModuleList(heads)
        for level in reversed(levels):
            level.register_forward_hook(self._keep_map)

    def _keep_map(self, _: nn.Module, __: tuple[Tensor, ...], maps: Tensor) -> None:
        if self._supervised is not None:
            self._supervised.append(maps)

    def forward(self, images: Tensor | EncodedImages, *, deep: bool = False) -> Tensor:
        """Return logits. Raises `ValueError` for a training batch that is too small for batch norm.

        With `deep` the result is (levels, N, outputs, H, W): the logits, and those of the auxiliary heads from the
        finest level on, enlarged to the size of the images.
        """
        try:
            return self.decode(images if isinstance(images, EncodedImages) else self.encode(images), deep=deep)
        except ValueError as error:
            if self.training and len(images) == 1:
                raise ValueError(
                    "a training batch has 1 image; allowed: at least 2, as this network normalises a global "
                    "average over the batch; merge the image into another batch or raise batch_size"
                ) from error
            raise

    def encode(self, images: Tensor) -> EncodedImages:
        """Return the feature maps of images (N, channels, H, W) in 0..1."""
        images = (images - self.mean) / self.std
        margins = Margins.around(images, self.multiple)
        features = self.encoder(margins.pad(images).contiguous(memory_format=torch.channels_last))
        return EncodedImages(features=features, margins=margins)

    def decode(self, encoded: EncodedImages, *, deep: bool = False) -> Tensor:
        """Return the logits of encoded images, as `forward`."""
        logits = self._deep_logits(encoded.features) if deep else self._logits(encoded.features)
        is_per_pixel = self.decoder is not None or isinstance(self.head, ShuffleHead)
        return encoded.margins.crop(logits) if is_per_pixel else logits

    def _deep_logits(self, features: list[Tensor]) -> Tensor:
        self._supervised = []
        try:
            logits, maps = self._logits(features), self._supervised[::-1]
        finally:
            self._supervised = None
        if self.auxiliary_heads is None:
            raise ValueError("the network has no auxiliary heads; allowed: with deep_supervision; build it with these")
        auxiliary = [head(level) for head, level in zip(self.auxiliary_heads, maps, strict=True)]
        enlarged = [F.interpolate(coarse, logits.shape[-2:], mode="bilinear") for coarse in auxiliary]
        return torch.stack([logits, *enlarged])

    def _logits(self, features: list[Tensor]) -> Tensor:
        if self.decoder is not None and not self.skips:
            features = [torch.zeros_like(feature) for feature in features[:-1]] + features[-1:]
        decoded = features[-1] if self.decoder is None else self.decoder(features)
        logits: Tensor = self.head(decoded)
        return logits

    def freeze(self, parts: Sequence[str], *, keep_dropout: bool = False) -> None:
        """Freeze parts, including batch-norm statistics: encoder, decoder, encoder.stage1 and so on.

        Stages are counted from the input; stage k is the k-th group of layers with a new feature map. With
        `keep_dropout` the dropout layers of all frozen parts stay active in training.
        """
        self._keeps_dropout = keep_dropout
        self._set_frozen(self._frozen.union(*map(self._names, parts)))

    def unfreeze(self, parts: Sequence[str]) -> None:
        """Unfreeze parts."""
        self._set_frozen(self._frozen.difference(*map(self._names, parts)))

    def mark_unused(self, names: frozenset[str]) -> None:
        """Exclude parameters that do not affect the logits from training."""
        self._unused = names
        self._set_frozen(self._frozen)

    def restrict_encoder(self, trained: frozenset[str], original_names: Mapping[str, str] | None = None) -> None:
        """Train only some parameters of the encoder. Batch-norm layers without any of them keep their statistics.

        Args:
            trained: Names of the parameters within the encoder.
            original_names: For an encoder whose parameters were renamed or added, the earlier name of each parameter,
                or that of the parameter whose stage a new one belongs to.
        """
        if original_names is not None:
            originals = {f"encoder.{name}": f"encoder.{original}" for name, original in original_names.items()}
            self._stages = tuple(
                frozenset(name for name, original in originals.items() if original in stage) for stage in self._stages
            )
            self._unused = frozenset(
                name for name, _ in self.named_parameters() if originals.get(name, name) in self._unused
            )
        names = frozenset(name for name, _ in self.encoder.named_parameters())
        self._fixed = frozenset(f"encoder.{name}" for name in names - trained)
        self._set_frozen(self._frozen)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules except frozen ones, which stay in evaluation mode; see `freeze` for dropout."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
            if self._keeps_dropout:
                for layer in module.modules():
                    if isinstance(layer, DROPOUT):
                        layer.train(mode)
        return self

    @property
    def encoder_stages(self) -> Sequence[frozenset[str]]:
        """Return the names of the encoder's parameters by stage, from the input on."""
        return self._stages

    @property
    def is_plain_transformer(self) -> bool:
        """Whether the encoder is a plain vision transformer, all of whose blocks have one resolution."""
        return bool(getattr(self.encoder, "is_plain_transformer", False))

    def _names(self, part: str) -> frozenset[str]:
        groups = {f"encoder.stage{number}": names for number, names in enumerate(self._stages, start=1)}
        for name in ("encoder", "decoder"):
            members = frozenset(key for key, _ in self.named_parameters() if key.startswith(f"{name}."))
            groups |= {name: members} if members else {}
        if part not in groups:
            raise ValueError(f"freeze names {part}; allowed: {', '.join(sorted(groups))}; correct the name")
        return groups[part]

    def _set_frozen(self, frozen: frozenset[str]) -> None:
        excluded = self._unused | self._fixed
        for name, parameter in self.named_parameters():
            if name in self._frozen | frozen | excluded:
                parameter.requires_grad_(name not in frozen | excluded)
        self._frozen = frozen
        fixed_norms = (module for module in _fully_frozen(self, "", self._fixed) for module in module.modules())
        norms = [module for module in fixed_norms if isinstance(module, _BatchNorm)]
        self._frozen_modules = (*_fully_frozen(self, "", frozen), *norms)
        self.train(self.training)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation mode within the block."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


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
