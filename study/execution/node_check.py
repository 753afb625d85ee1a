"""Check that a node of a cluster can access the data, weights and storage of a plan."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DataError
from study.planning.dataset_view import DatasetView, DatasetViewSpec
from study.planning.digest import digest
from study.planning.graph import Plan
from study.store.atomic import hash_of
from study.store.store import Store

ID_PREFIX = ".storage-"
"""Prefix of the name of the file that identifies a storage; a local folder at the same path does not have it."""


@dataclass(frozen=True, kw_only=True)
class NodeCheck:
    """The check of one node.

    `marks` are fingerprints of the planned data, `weights` are hashes of the files of weights, initial ones and those
    of teachers, `storage` is the path of a file in the storage, None if the storage is a URI.
    """

    data: Mapping[str, DatasetViewSpec]
    marks: Mapping[str, str]
    weights: Mapping[Path, str]
    cache: Path
    storage: Path | None

    def __call__(self) -> str:
        """Return why the node is rejected; empty if it passes."""
        if self.storage is not None and not self.storage.is_file():
            return f"does not see the storage {self.storage.parent}"
        for name, spec in self.data.items():
            try:
                fingerprint = data_fingerprint(DatasetView.open(spec, self.cache))
            except (DataError, OSError) as error:
                return f"cannot read {name}: {error}"
            if fingerprint != self.marks[name]:
                return f"has other files under {name} than were planned with"
        for file, expected in self.weights.items():
            try:
                actual = hash_of(file)
            except OSError as error:
                return f"cannot read {file}: {error.strerror or error}"
            if actual != expected:
                return f"has another {file} than was planned with"
        return ""


def data_fingerprint(view: DatasetView) -> str:
    """Return the digest of the images and annotations in the index of a data set."""
    index = view.index
    annotations: dict[str, list[str]] = {kind: list(digests) for kind, digests in index.annotation_digests.items()}
    return digest([list(index.ids), list(index.content), annotations])


def node_check(plan: Plan, store: Store, cache: Path) -> NodeCheck:
    """Return the node check of a plan. A storage URI is not checked."""
    return NodeCheck(
        data={name: view.spec for name, view in plan.views.items()},
        marks={name: data_fingerprint(view) for name, view in plan.views.items()},
        weights=plan.files,
        cache=cache,
        storage=None if store.origin else store.root / storage_id(store.root),
    )


def storage_id(storage: Path) -> str:
    """Return the name of the file that identifies a storage; create it at the first call."""
    existing = sorted(storage.glob(f"{ID_PREFIX}*"))
    if existing:
        return existing[0].name
    created = storage / f"{ID_PREFIX}{uuid.uuid4().hex}"
    created.touch()
    return created.name
