"""The local cache of the Hugging Face hub. Used by planning, so it does not import torch."""

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from models.catalog.published import SHA256, Content, PublishedWeights

WEIGHTS_FILE = "model.safetensors"


def cache_folder() -> Path:
    """Return the cache folder of the hub, as configured by environment variables."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hub = os.environ.get("HF_HOME", f"{home}/huggingface") + "/hub"
    named = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", hub))
    return Path(os.path.expandvars(named)).expanduser()


def cached_content(weights: PublishedWeights, folder: Path | None = None) -> Content | None:
    """Return the content that the cache has for the revision of published weights, None if it has none."""
    file = _revision_file(weights, folder)
    return Content(sha256=stated_sha256(file) or sha256_of(file), commit=file.parent.name) if file is not None else None


def verifiable_content(weights: PublishedWeights) -> Content | None:
    """Return the content of the cache, None for weights of a commit if the cache does not state its hash.

    The hash of a file says which content `main` had, but not whether the file is that of a commit.
    """
    file = _revision_file(weights, None)
    is_verifiable = file is not None and not (weights.is_identified_by_commit and stated_sha256(file) is None)
    return cached_content(weights) if is_verifiable else None


def _revision_file(weights: PublishedWeights, folder: Path | None) -> Path | None:
    """Return the cached file of the revision of published weights."""
    root = _repository_folder(weights, folder)
    reference = root / "refs" / weights.revision
    commit = reference.read_text().strip() if reference.is_file() else weights.revision
    file = root / "snapshots" / commit / WEIGHTS_FILE
    return file if file.is_file() else None


def cached_file(weights: PublishedWeights, content: Content | None, folder: Path | None = None) -> Path | None:
    """Return the cached file with a content, or without one that of the revision; None if it is not cached."""
    wanted = content or cached_content(weights, folder)
    if wanted is None:
        return None
    files = _snapshots(_repository_folder(weights, folder), wanted.commit)
    return next((file for file in files if (stated_sha256(file) or sha256_of(file)) == wanted.sha256), None)


def stated_sha256(file: Path) -> str | None:
    """Return the hash that the cache states for a file: the name of the file that the snapshot links to.

    None for files without a link, as in caches that were copied without links.
    """
    name = file.resolve().name
    return name if SHA256.fullmatch(name) else None


def sha256_of(file: Path) -> str:
    """Return the SHA-256 hash of a file, computed once per process unless its size or time changes."""
    status = file.stat()
    return _sha256(file.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _repository_folder(weights: PublishedWeights, folder: Path | None) -> Path:
    return (folder or cache_folder()) / f"models--{weights.repository.replace('/', '--')}"


def _snapshots(root: Path, commit: str) -> Iterator[Path]:
    """Yield the cached versions of a file, that of the commit first."""
    files = sorted(root.glob(f"snapshots/*/{WEIGHTS_FILE}"), key=lambda file: (file.parent.name != commit, file))
    return (file for file in files if file.is_file())
