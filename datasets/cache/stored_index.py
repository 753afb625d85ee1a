"""Cache of the index of a large layout, valid until one of its files or tables changes."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.cache.atomic_files import read_hashed, write_hashed
from datasets.cache.manifest import STATE, FileState, Listing, file_state
from datasets.settings import FileSettings
from datasets.source import Index

if TYPE_CHECKING:
    import pyarrow as pa

THREADS = 8
"""Independent of the number of cores: on a remote disk each stat call waits."""
SETTLED_NS = 2_000_000_000
"""A table read this soon after it was written may change again without a new mtime."""
MAPPING_FIELDS = ("annotation_digests", "annotation_faults", "complete")
"""Fields of an index that map kinds of annotation to lists."""
FILE_COLUMNS = ("path", *STATE)
State = FileState | None


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredIndex:
    """An index with the files and tables it was built from; `tables` is keyed by path below the root."""

    index: Index
    listing: Listing
    tables: Mapping[str, State]


def index_path(cache: Path, settings: FileSettings) -> Path:
    """Return the path of the cached index."""
    text = f"{settings.root.resolve()} {settings.model_dump_json(exclude={'annotation_minutes'})}"
    return cache / "indices" / f"{blake2b(os.fsencode(text), digest_size=16).hexdigest()}.parquet"


def save(stored: StoredIndex, path: Path, time_ns: int) -> None:
    """Write an index, unless its tables were modified just before they were read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if any(state and state[1] > time_ns - SETTLED_NS for state in stored.tables.values()):
        return
    columns, scalars = _split_index(stored.index)
    files = stored.listing.files
    states = zip(*files.values(), strict=True) if files else [()] * len(STATE)
    columns |= {name: list(values) for name, values in zip(FILE_COLUMNS, (files, *states), strict=True)}
    metadata = {"code": _source_hash(), "index": json.dumps(scalars), "tables": json.dumps(stored.tables)}
    # A single row of lists, as the lists differ in length.
    inode = pa.array([columns.pop("inode")], pa.list_(pa.uint64()))  # some file systems use all 64 bits
    table = pa.table({name: [values] for name, values in columns.items()} | {"inode": inode}, metadata=metadata)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="lz4")
    write_hashed(path, buffer.getvalue().to_pybytes())


def load(path: Path, root: Path, folders: Mapping[str, Any]) -> StoredIndex | None:
    """Return the cached index, None if it is missing or anything below the root has changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_hashed(path)
    if data is None:  # missing or damaged
        return None
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        metadata = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
        if metadata.get("code") != _source_hash():
            return None
        table = file.read()
    paths, *states = (_values(table, name) for name in FILE_COLUMNS)
    tables = {name: tuple(state) if state else None for name, state in json.loads(metadata["tables"]).items()}
    files = dict(zip(paths, zip(*states, strict=True), strict=True))
    listing = Listing(root=root, folders=folders, files=files)
    if not _is_unchanged(listing, tables):
        return None
    columns = {name: _values(table, name) for name in table.column_names if name not in FILE_COLUMNS}
    return StoredIndex(index=_join_index(columns, json.loads(metadata["index"])), listing=listing, tables=tables)


def _is_unchanged(listing: Listing, tables: Mapping[str, State]) -> bool:
    """Stat every file, which is much faster than listing the folders."""
    if any(file_state(listing.root / name) != state for name, state in tables.items()):
        return False
    paths, states = list(listing.files), list(listing.files.values())
    step = len(paths) // THREADS + 1

    def is_chunk_unchanged(first: int) -> bool:
        return _states(listing.root, paths[first : first + step]) == states[first : first + step]

    with ThreadPoolExecutor(THREADS) as pool:
        return all(pool.map(is_chunk_unchanged, range(0, len(paths), step)))


def _states(root: Path, paths: Sequence[str]) -> list[State]:
    """Return the current state of each file, None for missing ones."""
    return [file_state(f"{root}/{path}") for path in paths]


def _split_index(index: Index) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split an index into columns with one entry per image, and scalars."""
    values = {field.name: getattr(index, field.name) for field in fields(index)}
    by_kind = {f"{name}.{kind}": list(column) for name in MAPPING_FIELDS for kind, column in values.pop(name).items()}
    columns = {name: list(value) for name, value in values.items() if isinstance(value, list)}
    return columns | by_kind, {name: value for name, value in values.items() if name not in columns}


def _join_index(columns: Mapping[str, Any], scalars: Mapping[str, Any]) -> Index:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in scalars.items()
    }
    values |= {name: {} for name in MAPPING_FIELDS}
    for name, column in columns.items():
        field, _, kind = name.partition(".")
        if kind:
            values[field][kind] = column
        else:
            values[field] = [tuple(map(float, spacing)) for spacing in column] if field == "spacings" else column
    return Index(**values)


def _values(table: "pa.Table", name: str) -> list[Any]:
    values: list[Any] = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).tolist()
    return values


@cache
def _source_hash() -> str:
    """Return a hash of the source code of this package, which makes a version number unnecessary."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    return blake2b(b"".join(source.read_bytes() for source in sources), digest_size=16).hexdigest()
