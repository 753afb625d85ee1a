"""Feature maps of frozen encoders, computed once for each image and kept in the cache for all stages."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.cache.arrays import PREPARED, CachedArray, Layout, open_entry
from datasets.errors import DataError
from datasets.loading.examples import Positions
from datasets.loading.prepare import BUDGET_BYTES, Prepared, readable_rows
from datasets.settings import ImageSettings
from datasets.source import Index
from datasets.targets import Target
from datasets.versions import VERSIONS as DATASETS
from models.encoders.reach import reached_parameters
from models.network import EncodedImages, Margins, Network, evaluation_mode
from models.versions import VERSIONS as MODELS
from study.training.loader import FeatureReader, on_device, to_images

BYTES: Final = BUDGET_BYTES // 2
"""Size up to which the feature maps of a data set are kept."""
BYTES_PER_IMAGE: Final = {"cpu": 16 * 2**20, "cuda": 2 * 2**20}
"""Larger feature maps are computed again, as reading them may take as long."""
CHUNK: Final = 16
"""Images whose feature maps are in one file."""
BATCH: Final = 8
"""Images that are encoded at once; always the same ones, so that results do not depend on what is in the cache."""
MAX_OPEN: Final = 128
"""Files that are kept open: processes are limited to some hundreds of them."""
FLOAT_BYTES: Final = 4


@dataclass(frozen=True, kw_only=True)
class _Maps:
    """The feature maps of an image.

    Attributes:
        shapes: The shape of each map (channels, height, width).
        channels_last: Whether the channels of a map are last in memory, on which rounding in a decoder depends.
        used: The numbers of the maps that the decoder uses.
        margins: The margins of the image.
    """

    shapes: tuple[tuple[int, ...], ...]
    channels_last: tuple[bool, ...]
    used: tuple[int, ...]
    margins: Margins

    @property
    def values(self) -> int:
        """Return the number of values of the maps that are used."""
        return sum(math.prod(self.shapes[number]) for number in self.used)

    def flatten(self, features: Sequence[Tensor]) -> Tensor:
        """Return the values (N, values) of feature maps (N, channels, height, width) in their order in memory."""
        maps = ((features[number], self.channels_last[number]) for number in self.used)
        return torch.cat([(part.movedim(1, -1) if last else part).flatten(1) for part, last in maps], dim=1)

    def restore(self, values: Tensor) -> EncodedImages:
        """Return the feature maps of values (N, values); those that are not used are 0."""
        features = [values.new_zeros(()).expand(len(values), *shape) for shape in self.shapes]
        parts = torch.split(values, [math.prod(self.shapes[number]) for number in self.used], dim=1)
        for number, part in zip(self.used, parts, strict=True):
            channels, *sides = self.shapes[number]
            last = self.channels_last[number]
            features[number] = (
                part.view(-1, *sides, channels).movedim(-1, 1) if last else part.view(-1, channels, *sides)
            )
        return EncodedImages(features=features, margins=self.margins)


class CachedFeatures:
    """Reads the feature maps of rows of a data set from the cache; those that are missing are computed by chunks.

    For encoders whose features depend neither on other images of a batch nor on chance. Each chunk is one file,
    which is complete once it exists, so that processes and machines can share a cache.

    Args:
        network: The network on its device. Its encoder must not change afterwards.
        images: The images of the data set.
        index: Its index.
        target: The annotation that all rows have whose features are read.
        image: How the images were prepared.
        cache: Folder of the caches.
    """

    def __init__(
        self, network: Network, images: Prepared, index: Index, target: Target, image: ImageSettings, *, cache: Path
    ) -> None:
        self._network, self._images, self._cache = network, images.images, cache / PREPARED
        self._device = next(network.parameters()).device
        self._maps = _maps(network, (image.channels, *image.shape), self._device)
        rows = np.asarray(readable_rows(index, target), dtype=np.int64)
        self._chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        self._places = {row: divmod(position, CHUNK) for position, row in enumerate(rows.tolist())}
        self._identities = [f"{index.ids[row]} {index.content[row]}" for row in rows.tolist()]
        self._image = image
        self._opened: dict[int, CachedArray] = {}

    def reader(self, *, passes: int) -> FeatureReader | None:
        """Return a function that reads the feature maps of rows.

        None if the maps are too large to be kept, or if computing them takes longer than the stage without them.

        Args:
            passes: Number of images that the stage would encode in training.
        """
        size = self._maps.values * FLOAT_BYTES
        if size > BYTES_PER_IMAGE[self._device.type] or size * len(self._places) > BYTES or passes < len(self._places):
            return None
        return self._read

    def _read(self, rows: Positions) -> EncodedImages:
        """Return the feature maps of rows."""
        places = [self._places[row] for row in rows.tolist()]
        try:
            values = np.stack([self._chunk(number)[offset] for number, offset in places])
        except DataError:  # the disk is full
            values = self._computed(rows)
        return self._maps.restore(on_device(torch.from_numpy(values), self._device))

    def _chunk(self, number: int) -> CachedArray:
        """Return the values (rows, values) of a chunk."""
        if number not in self._opened:
            if len(self._opened) == MAX_OPEN:
                self._opened.clear()
            layout: Layout = {"features": ((len(self._chunks[number]), self._maps.values), np.float32)}
            self._opened[number] = open_entry(
                self._cache / self._key(number),
                layout,
                lambda arrays: self._fill(self._chunks[number], arrays["features"]),
                budget_bytes=BUDGET_BYTES,
            )["features"]
        return self._opened[number]

    @cached_property
    def _meaning(self) -> dict[str, Any]:
        """Return what the maps of all images depend on. Only read if there are any, as hashing weights takes time."""
        return {
            "image": self._image.model_dump(), "encoder": _fingerprint(self._network), **asdict(self._maps),
            "device": self._device.type, "torch": torch.__version__,
            "versions": [DATASETS["preparation"], MODELS["network"]],
        }  # fmt: skip

    def _key(self, number: int) -> str:
        start = number * CHUNK
        parts = {**self._meaning, "rows": self._identities[start : start + CHUNK]}
        return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _fill(self, rows: Positions, values: CachedArray) -> None:
        for start in range(0, len(rows), BATCH):
            values[start : start + BATCH] = self._computed(rows[start : start + BATCH])

    @torch.no_grad()
    def _computed(self, rows: Positions) -> NDArray[np.float32]:
        images = to_images(torch.from_numpy(self._images[rows]), self._device)
        with evaluation_mode(self._network):
            values: NDArray[np.float32] = self._maps.flatten(self._network.encode(images).features).cpu().numpy()
        return values


@torch.no_grad()
def _maps(network: Network, shape: tuple[int, ...], device: torch.device) -> _Maps:
    """Return the feature maps of images (channels, height, width)."""
    images = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(device)
    with evaluation_mode(network):
        encoded = network.encode(images)
        with torch.enable_grad():
            leaves = [feature.detach().requires_grad_() for feature in encoded.features]
            reached = reached_parameters(network.decode(EncodedImages(features=leaves, margins=encoded.margins)))
        maps = _Maps(
            shapes=tuple(tuple(feature.shape[1:]) for feature in encoded.features),
            channels_last=tuple(not feature.is_contiguous() for feature in encoded.features),
            used=tuple(number for number, leaf in enumerate(leaves) if id(leaf) in reached),
            margins=encoded.margins,
        )
        restored = network.decode(maps.restore(maps.flatten(encoded.features)))
        if not torch.equal(restored, network.decode(encoded)):  # the decoder also uses maps without a gradient
            return replace(maps, used=tuple(range(len(maps.shapes))))
    return maps


def _fingerprint(network: Network) -> str:
    """Return a hash of the layers, weights and buffers of the encoder and of the statistics of its inputs."""
    digest = blake2b(repr(network.encoder).encode(), digest_size=16)
    tensors: dict[str, Tensor] = {"mean": network.mean, "std": network.std, **network.encoder.state_dict()}
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
