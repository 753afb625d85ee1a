"""Published initial weights in a shared storage: the driver downloads them once for all nodes."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from models.catalog.registry import initial_weights_id
from study.store.atomic import hash_of, replacing
from study.store.store import Store

SUFFIX = ".safetensors"


def store_weights(store: Store, weights: Iterable[tuple[str, str]]) -> None:
    """Download missing weights to the storage. Raises `models.weights.initial.WeightsUnavailable`."""
    from models.weights.initial import fetch_weights

    for backbone, name in weights:
        if stored_weights(store, backbone, name) is None:
            file = fetch_weights(backbone, name)
            folder, file_name = _folder(backbone, name), f"{hash_of(file)}{SUFFIX}"
            if store.mirror is not None:  # first, because files that exist locally are not uploaded
                store.mirror.remote.put(file, f"{folder}/{file_name}")
            _copy(file, store.root / folder / file_name)


def stored_weights(store: Store, backbone: str, name: str) -> Path | None:
    """Return the path of weights in the storage, None if it lacks them. Raises `ValueError` if they were altered."""
    folder = _folder(backbone, name)
    file = next((store.root / folder).glob(f"*{SUFFIX}"), None)
    if file is None and store.mirror is not None:
        key = next((key for key in store.mirror.remote.entries(folder) if key.endswith(SUFFIX)), None)
        if key is not None:
            file = store.root / key
            store.mirror.remote.get(key, file)
    if file is not None and hash_of(file) != file.stem:
        if store.mirror is not None:
            file.unlink()  # a local copy
        raise ValueError(
            f"{store.place}/{folder}/{file.name} was altered; allowed: the weights whose hash is its name; remove it, "
            "and the next run fetches them again"
        )
    return file


def _folder(backbone: str, name: str) -> str:
    return f"weights/{initial_weights_id(backbone, name).replace('/', '--')}"


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(file, temporary)
