"""The index of a large layout, kept as long as none of its files and tables changes."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.cache.aside import read_hashed, write_hashed
from datasets.cache.manifest import STATE, FileState, Listing, file_state
from datasets.settings import FileSettings
from datasets.source import Index

if TYPE_CHECKING:
    import pyarrow as pa

THREADS = 8
"""However many cores there are: on a remote disk each look waits."""
SETTLED_NS = 2_000_000_000
"""A table written this shortly before it was read may have changed again without a change of its time."""
MAPPED = ("offers", "offer_faults")
"""Fields of an index that hold lists by kind of annotation."""
LISTED = ("path", *STATE)
State = FileState | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """An index, and the files and tables it was made of; `tables` by path below the root."""

    index: Index
    listing: Listing
    tables: Mapping[str, State]


def place_of(cache: Path, settings: FileSettings) -> Path:
    """Return where the index of a layout is kept."""
    text = f"{settings.root.resolve()} {settings.model_dump_json()}"
    return cache / "indices" / f"{blake2b(os.fsencode(text), digest_size=16).hexdigest()}.parquet"


def save(stored: Stored, place: Path, time_ns: int) -> None:
    """Keep an index, but for one of tables that were written just before they were looked at."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if any(state and state[1] > time_ns - SETTLED_NS for state in stored.tables.values()):
        return
    lists, rest = _taken_apart(stored.index)
    files = stored.listing.files
    states = zip(*files.values(), strict=True) if files else [()] * len(STATE)
    lists |= {name: list(values) for name, values in zip(LISTED, (files, *states), strict=True)}
    told = {"code": _code(), "index": json.dumps(rest), "tables": json.dumps(stored.tables)}
    # One line of lists: they differ in length.
    inode = pa.array([lists.pop("inode")], pa.list_(pa.uint64()))  # some file systems use all 64 bits
    table = pa.table({name: [values] for name, values in lists.items()} | {"inode": inode}, metadata=told)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="lz4")
    write_hashed(place, buffer.getvalue().to_pybytes())


def load(place: Path, root: Path, folders: Mapping[str, Any]) -> Stored | None:
    """Return what is kept, None where there is nothing, or something under the root is not as it was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_hashed(place)
    if data is None:  # not there, or damaged
        return None
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        told = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
        if told.get("code") != _code():
            return None
        table = file.read()
    paths, *states = (_values(table, name) for name in LISTED)
    tables = {name: tuple(state) if state else None for name, state in json.loads(told["tables"]).items()}
    files = dict(zip(paths, zip(*states, strict=True), strict=True))
    listing = Listing(root=root, folders=folders, files=files)
    if not _is_unchanged(listing, tables):
        return None
    lists = {name: _values(table, name) for name in table.column_names if name not in LISTED}
    return Stored(index=_put_together(lists, json.loads(told["index"])), listing=listing, tables=tables)


def _is_unchanged(listing: Listing, tables: Mapping[str, State]) -> bool:
    """Look at every file once, which takes a fraction of the time of listing them."""
    if any(file_state(listing.root / name) != state for name, state in tables.items()):
        return False
    paths, states = list(listing.files), list(listing.files.values())
    step = len(paths) // THREADS + 1

    def are_same(first: int) -> bool:
        return _states(listing.root, paths[first : first + step]) == states[first : first + step]

    with ThreadPoolExecutor(THREADS) as pool:
        return all(pool.map(are_same, range(0, len(paths), step)))


def _states(root: Path, paths: Sequence[str]) -> list[State]:
    """Return what files are now, None of one that is not there."""
    return [file_state(f"{root}/{path}") for path in paths]


def _taken_apart(index: Index) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what has an entry an image, and the rest."""
    values = {field.name: getattr(index, field.name) for field in fields(index)}
    mapped = {f"{name}.{kind}": list(held) for name in MAPPED for kind, held in values.pop(name).items()}
    lists = {name: list(value) for name, value in values.items() if isinstance(value, list)}
    return lists | mapped, {name: value for name, value in values.items() if name not in lists}


def _put_together(lists: Mapping[str, Any], rest: Mapping[str, Any]) -> Index:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
    values |= {name: {} for name in MAPPED}
    for name, held in lists.items():
        field, _, kind = name.partition(".")
        if kind:
            values[field][kind] = held
        else:
            values[field] = held
    return Index(**values)


def _values(table: "pa.Table", name: str) -> list[Any]:
    found: list[Any] = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).tolist()
    return found


@cache
def _code() -> str:
    """Return a hash of what makes an index, so that nobody has to raise a number for it."""
    sources = sorted(Path(__file__).parents[1].rglob("*.py"))
    return blake2b(b"".join(source.read_bytes() for source in sources), digest_size=16).hexdigest()
