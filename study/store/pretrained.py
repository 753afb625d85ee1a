"""Published initial weights in a storage that several nodes share: fetched once, by the driver."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from models.catalog.registry import initial_weights_id
from study.store.atomic import hash_of, replacing
from study.store.store import Store

SUFFIX = ".safetensors"


def keep(store: Store, weights: Iterable[tuple[str, str]]) -> None:
    """Put weights that the storage lacks into it. Raises `models.weights.initial.WeightsUnavailable`."""
    from models.weights.initial import fetched

    for backbone, name in weights:
        if kept(store, backbone, name) is None:
            file = fetched(backbone, name)
            folder, place = _folder(backbone, name), f"{hash_of(file)}{SUFFIX}"
            if store.mirror is not None:  # first: what lies here is not stored again
                store.mirror.remote.put(file, f"{folder}/{place}")
            _copy(file, store.root / folder / place)


def kept(store: Store, backbone: str, name: str) -> Path | None:
    """Return these weights from the storage, None where it has none. Raises `ValueError` for altered ones."""
    folder = _folder(backbone, name)
    found = next((store.root / folder).glob(f"*{SUFFIX}"), None)
    if found is None and store.mirror is not None:
        key = next((key for key in store.mirror.remote.entries(folder) if key.endswith(SUFFIX)), None)
        if key is not None:
            found = store.root / key
            store.mirror.remote.get(key, found)
    if found is not None and hash_of(found) != found.stem:
        if store.mirror is not None:
            found.unlink()  # a copy
        raise ValueError(
            f"{store.place}/{folder}/{found.name} was altered; allowed: the weights whose hash is its name; remove it, "
            "and the next run fetches them again"
        )
    return found


def _folder(backbone: str, name: str) -> str:
    return f"weights/{initial_weights_id(backbone, name).replace('/', '--')}"


def _copy(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as aside:
        shutil.copyfile(file, aside)
