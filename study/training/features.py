"""Feature maps of frozen encoders, computed once for each image and kept in the cache for all stages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from datasets.cache.arrays import CachedArray, Layout, WritableArray, open_entry, size_of, writable_entry
from datasets.errors import DataError
from datasets.loading.examples import Positions
from datasets.loading.prepare import BUDGET_BYTES, Prepared, entry_folder
from datasets.settings import ImageSettings
from datasets.source import Index
from models.encoders.reach import reached_parameters
from models.network import EncodedImages, Margins, Network
from models.versions import VERSIONS
from study.training.loader import FeatureReader, on_device, to_images

BYTES_PER_IMAGE: Final = 16 * 2**20
"""Feature maps of more bytes are computed again, as reading them would take about as long."""
BYTES: Final = BUDGET_BYTES // 2
"""Size up to which the feature maps of a data set are kept."""
BATCH: Final = 8


@dataclass(frozen=True, kw_only=True)
class _Maps:
    """The feature maps of one image: the shape of each, and the numbers of those that the decoder uses."""

    shapes: tuple[tuple[int, ...], ...]
    used: tuple[int, ...]
    margins: Margins

    @property
    def layout(self) -> Mapping[str, tuple[int, ...]]:
        return {f"map{number}": self.shapes[number] for number in self.used}


class CachedFeatures:
    """Reads the feature maps of rows of a data set, and computes those that are missing.

    Not for encoders whose features depend on other images of the batch or on chance.

    Args:
        network: The network on its device, in evaluation mode. Its encoder must not change afterwards.
        images: The images of the data set.
        index: Its index.
        image: How the images were prepared.
        cache: Folder of the caches.
    """

    def __init__(self, network: Network, images: Prepared, index: Index, image: ImageSettings, *, cache: Path) -> None:
        self._network, self._images = network, images.images
        device = next(network.parameters()).device
        self._maps = _maps(network, to_images(torch.from_numpy(images.images[[0]]), device))
        meaning = {
            "image": image.model_dump(), "encoder": _fingerprint(network), "maps": self._maps.layout,
            "margins": self._maps.margins, "version": VERSIONS["network"],
        }  # fmt: skip
        self._folder, self._count = entry_folder(index, "image", cache, meaning), len(index)
        self._arrays: Mapping[str, CachedArray] = {}

    def reader(self, rows: Sequence[int]) -> FeatureReader | None:
        """Return a function that reads the feature maps of rows, after computing those that are missing.

        None if the maps are too large to be kept.
        """
        size = size_of(self._layout)
        if size > min(BYTES, BYTES_PER_IMAGE * self._count):
            return None
        try:
            self._prepare(np.unique(np.asarray(rows, dtype=np.int64)))
        except DataError:  # the disk is too small
            return None
        return self._read

    def _prepare(self, chosen: Positions) -> None:
        """Open the feature maps, and compute those of rows that no process has computed yet."""
        while True:
            self._arrays = open_entry(self._folder, self._layout, lambda _: None, budget_bytes=BUDGET_BYTES)
            if self._arrays["ready"][chosen].all():
                return
            # Another process may remove the entry at any point, which is then filled again.
            with suppress(FileNotFoundError), FileLock(self._folder.with_name(f"{self._folder.name}.fill.lock")):
                arrays = writable_entry(self._folder, self._layout)
                missing = chosen[~arrays["ready"][chosen]]
                with _evaluation_mode(self._network):
                    for start in range(0, len(missing), BATCH):
                        self._fill(missing[start : start + BATCH], arrays)
                self._arrays = arrays
                return

    def _read(self, rows: Positions, device: torch.device) -> EncodedImages:
        """Return the feature maps of rows. Those that the decoder does not use are 0."""
        features = [torch.zeros((), device=device).expand(len(rows), *shape) for shape in self._maps.shapes]
        for number in self._maps.used:
            features[number] = on_device(torch.from_numpy(self._arrays[f"map{number}"][rows]), device)
        return EncodedImages(features=features, margins=self._maps.margins)

    @property
    def _layout(self) -> Layout:
        maps: Layout = {name: ((self._count, *shape), np.float32) for name, shape in self._maps.layout.items()}
        return {**maps, "ready": ((self._count,), np.bool_)}

    @torch.no_grad()
    def _fill(self, rows: Positions, arrays: Mapping[str, WritableArray]) -> None:
        device = next(self._network.parameters()).device
        images = to_images(torch.from_numpy(self._images[rows]), device)
        features = self._network.encode(images).features
        for number in self._maps.used:
            array = arrays[f"map{number}"]
            array[rows] = features[number].cpu().numpy()
            array.flush()  # before the rows count as ready
        arrays["ready"][rows] = True
        arrays["ready"].flush()


def _maps(network: Network, image: Tensor) -> _Maps:
    with _evaluation_mode(network):
        with torch.no_grad():
            encoded = network.encode(image)
        leaves = [feature.detach().requires_grad_() for feature in encoded.features]
        reached = reached_parameters(network.decode(EncodedImages(features=leaves, margins=encoded.margins)))
    return _Maps(
        shapes=tuple(tuple(feature.shape[1:]) for feature in encoded.features),
        used=tuple(number for number, leaf in enumerate(leaves) if id(leaf) in reached),
        margins=encoded.margins,
    )


@contextmanager
def _evaluation_mode(network: Network) -> Iterator[None]:
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _fingerprint(network: Network) -> str:
    """Return a hash of the layers, weights and buffers of the encoder and of the statistics of its inputs."""
    digest = blake2b(repr(network.encoder).encode(), digest_size=16)
    tensors: dict[str, Tensor] = {"mean": network.mean, "std": network.std, **network.encoder.state_dict()}
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
