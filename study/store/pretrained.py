"""Published weights in a storage: which content was taken, and their files if several machines share them."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.catalog.hub_cache import sha256_of
from models.catalog.published import COMMIT, SHA256, Content, PublishedWeights
from study.errors import ConfigError, Problem
from study.store.atomic import AlteredFileError, Form, hash_of, read_signed, write_signed
from study.store.store import Store

SUFFIX = ".safetensors"
RECORD = "content.json"
OLD_HASH_LENGTH = 32
"""Length of the hash in names of files that version 0.2.0 and earlier stored: BLAKE2b."""


def _is_record(values: dict[str, Any]) -> bool:
    return (
        SHA256.fullmatch(str(values.get("sha256"))) is not None
        and COMMIT.fullmatch(str(values.get("commit"))) is not None
    )


RECORD_FORM = Form(names=frozenset(), is_sound=_is_record)


def record_contents(store: Store, contents: Mapping[PublishedWeights, Content | None]) -> None:
    """Record the contents of published weights, so that the storage keeps to them if they change upstream.

    Raises `ConfigError` if another process has recorded another content since the contents were planned with.
    """
    for weights, content in contents.items():
        if content is None:
            continue
        recorded = recorded_content(store, weights) or _record(store, weights, content)
        if recorded.sha256 != content.sha256:
            message = (
                f"another run has recorded another content of {weights} since this one was planned (SHA-256 "
                f"{recorded.sha256}); allowed: one content for all studies of a storage; run the study again"
            )
            raise ConfigError([Problem(path="", message=message)], store.place)


def _record(store: Store, weights: PublishedWeights, content: Content) -> Content:
    """Record a content, and return that of the process which was first."""
    record = {"repository": weights.repository, "sha256": content.sha256, "commit": content.commit}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / RECORD
        write_signed(file, record)
        store.backend.create_file(file, f"{_folder(weights)}/{RECORD}")
    return recorded_content(store, weights) or content


def recorded_content(store: Store, weights: PublishedWeights) -> Content | None:
    """Return the content that was recorded for published weights, None if there is no record.

    Raises `AlteredFileError` for a damaged record.
    """
    file = store.backend.find_file(_folder(weights), Path(RECORD).suffix)
    record = read_signed(file, RECORD_FORM) if file is not None else None
    return Content(sha256=record["sha256"], commit=record["commit"]) if record is not None else None


def store_weights(store: Store, contents: Mapping[PublishedWeights, Content | None]) -> None:
    """Download missing weights to the storage.

    Raises `models.weights.initial.WeightsUnavailable`, and `ValueError` if the file in the cache was altered.
    """
    from models.weights.initial import fetch_weights

    for weights, content in contents.items():
        if stored_weights(store, weights, content) is None:
            file = fetch_weights(weights, content)
            store.backend.add_file(file, f"{_folder(weights)}/{sha256_of(file)}{SUFFIX}")


def stored_weights(store: Store, weights: PublishedWeights, content: Content | None) -> Path | None:
    """Return the path of weights in the storage, None if it lacks them. Raises `AlteredFileError`.

    Args:
        store: The storage.
        weights: The weights.
        content: Their content, None if it is that of a commit and its hash is not known.
    """
    by_hash = content is not None and not weights.is_identified_by_commit
    suffix = f"{content.sha256}{SUFFIX}" if content is not None and by_hash else SUFFIX
    file = store.backend.find_file(_folder(weights), suffix)
    if file is not None and not _is_intact(file):
        if store.origin is not None:
            file.unlink(missing_ok=True)  # only the local copy
        where = f"{store.place}/{_folder(weights)}/{file.name}"
        raise AlteredFileError(
            where, "was altered after it was written", "remove it, and the next run fetches it again"
        )
    return file


def _is_intact(file: Path) -> bool:
    return file.stem == (hash_of(file) if len(file.stem) == OLD_HASH_LENGTH else sha256_of(file))


def _folder(weights: PublishedWeights) -> str:
    return f"weights/{weights.key}"
