"""Published initial weights in a shared storage: the driver downloads them once for all nodes."""

from collections.abc import Iterable
from pathlib import Path

from models.catalog.registry import initial_weights_id
from study.store.atomic import hash_of
from study.store.store import Store

SUFFIX = ".safetensors"


def store_weights(store: Store, weights: Iterable[tuple[str, str]]) -> None:
    """Download missing weights to the storage. Raises `models.weights.initial.WeightsUnavailable`."""
    from models.weights.initial import fetch_weights

    for backbone, name in weights:
        if stored_weights(store, backbone, name) is None:
            file = fetch_weights(backbone, name)
            folder, file_name = _folder(backbone, name), f"{hash_of(file)}{SUFFIX}"
            store.backend.add_file(file, f"{folder}/{file_name}")


def stored_weights(store: Store, backbone: str, name: str) -> Path | None:
    """Return the path of weights in the storage, None if it lacks them. Raises `ValueError` if they were altered."""
    folder = _folder(backbone, name)
    file = store.backend.find_file(folder, SUFFIX)
    if file is not None and hash_of(file) != file.stem:
        if store.origin is not None:
            file.unlink()  # only the local copy
        raise ValueError(
            f"{store.place}/{folder}/{file.name} was altered; allowed: the weights whose hash is its name; remove it, "
            "and the next run fetches them again"
        )
    return file


def _folder(backbone: str, name: str) -> str:
    return f"weights/{initial_weights_id(backbone, name).replace('/', '--')}"
