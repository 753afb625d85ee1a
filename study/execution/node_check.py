"""Whether a node of a cluster sees what a study was planned with: the same data, weights and storage."""

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

MARK = ".storage-"
"""How a file's name begins that tells a storage from another machine's own folder at the same path."""


@dataclass(frozen=True, kw_only=True)
class Footing:
    """What is asked of a node.

    `marks` tell the data of the plan, `weights` are hashes of its files of initial weights, `storage` is a file of it,
    None for a URI.
    """

    data: Mapping[str, DatasetViewSpec]
    marks: Mapping[str, str]
    weights: Mapping[Path, str]
    cache: Path
    storage: Path | None

    def __call__(self) -> str:
        """Return what the node lacks, nothing where it may take part."""
        if self.storage is not None and not self.storage.is_file():
            return f"does not see the storage {self.storage.parent}"
        for name, spec in self.data.items():
            try:
                there = mark(DatasetView.open(spec, self.cache))
            except (DataError, OSError) as error:
                return f"cannot read {name}: {error}"
            if there != self.marks[name]:
                return f"has other files under {name} than were planned with"
        for file, content in self.weights.items():
            try:
                found = hash_of(file)
            except OSError as error:
                return f"cannot read {file}: {error.strerror or error}"
            if found != content:
                return f"has another {file} than was planned with"
        return ""


def mark(view: DatasetView) -> str:
    """Return the digest of what a data set's index says of its images."""
    index = view.index
    return digest([list(index.ids), list(index.content), {kind: list(held) for kind, held in index.offers.items()}])


def node_check(plan: Plan, store: Store, cache: Path) -> Footing:
    """Return the check of this plan; a storage that is reached by a URI is asked of nobody."""
    return Footing(
        data={name: view.spec for name, view in plan.views.items()},
        marks={name: mark(view) for name, view in plan.views.items()},
        weights=plan.files,
        cache=cache,
        storage=None if store.origin else store.root / mark_of(store.root),
    )


def mark_of(storage: Path) -> str:
    """Return the name of a file that no other storage has unless it is a copy; made when it is first asked for."""
    found = sorted(storage.glob(f"{MARK}*"))
    if found:
        return found[0].name
    own = storage / f"{MARK}{uuid.uuid4().hex}"
    own.touch()
    return own.name
