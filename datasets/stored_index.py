"""The index of a large layout, kept as long as no file, folder or table under its root changes."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.manifest import ABSENT, Listing, file_state
from datasets.sample import Index
from datasets.settings import FileSettings

if TYPE_CHECKING:
    import pyarrow as pa

THREADS = min(8, os.cpu_count() or 1)
"""That look files up."""
SETTLED_NS = 2_000_000_000
"""What was written this shortly before it was listed may have changed again without a change of its time."""
OFFER = "offers."
LISTED = ("path", "bytes", "mtime_ns", "folder", "folder_mtime_ns")
State = tuple[int, int] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stored:
    """An index, and the files and tables it was made of; `tables` (bytes, mtime in ns) by path below the root."""

    index: Index
    listing: Listing
    tables: Mapping[str, State]


def place_of(cache: Path, settings: FileSettings) -> Path:
    """Return where the index of a layout is kept."""
    text = f"{settings.root.resolve()} {settings.model_dump_json()}"
    return cache / "indices" / f"{blake2b(text.encode(), digest_size=16).hexdigest()}.parquet"


def save(stored: Stored, place: Path) -> None:
    """Keep an index, but for one of folders or tables that were written just before they were listed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    listing = stored.listing
    latest = max([*listing.directories.values(), *(state[1] for state in stored.tables.values() if state)], default=0)
    if latest > listing.time_ns - SETTLED_NS:
        return
    lists, rest = _taken_apart(stored.index)
    sizes, times = zip(*listing.files.values(), strict=True) if listing.files else ((), ())
    listed = (listing.files, sizes, times, listing.directories, listing.directories.values())
    lists |= {name: list(values) for name, values in zip(LISTED, listed, strict=True)}
    told = {"code": _code(), "index": json.dumps(rest), "tables": json.dumps(stored.tables)}
    # One line of lists: they differ in length.
    table = pa.table({name: [values] for name, values in lists.items()}, metadata=told)
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table, aside, compression="lz4")
    aside.replace(place)


def load(place: Path, root: Path, folders: Mapping[str, Any]) -> Stored | None:
    """Return what is kept, None where there is nothing, or something under the root is not as it was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(place, memory_map=True) as file:
            told = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
            if told.get("code") != _code():
                return None
            table = file.read()
    except (OSError, pa.ArrowInvalid):  # not there, or cut off by a crash
        return None
    paths, sizes, times, directories, changed = (_values(table, name) for name in LISTED)
    tables = {name: tuple(state) if state else None for name, state in json.loads(told["tables"]).items()}
    files = dict(zip(paths, zip(sizes, times, strict=True), strict=True))
    listing = Listing(root=root, folders=folders, files=files, directories=dict(zip(directories, changed, strict=True)))
    if not _is_unchanged(listing, tables):
        return None
    lists = {name: _values(table, name) for name in table.column_names if name not in LISTED}
    return Stored(index=_put_together(lists, json.loads(told["index"])), listing=listing, tables=tables)


def _is_unchanged(listing: Listing, tables: Mapping[str, State]) -> bool:
    """Look at every file and folder once, which takes half of the time of listing them, and less in threads."""
    if any(file_state(listing.root / name) != state for name, state in tables.items()):
        return False
    try:
        root = os.open(listing.root, os.O_RDONLY)
    except OSError:
        return False
    files, directories = [*listing.files.items()], [*listing.directories.items()]

    def is_same(part: slice) -> bool:
        return all(_state(path, root) == state for path, state in files[part]) and all(
            _time(path, root) == time for path, time in directories[part]
        )

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return all(pool.map(is_same, [slice(start, None, THREADS) for start in range(THREADS)]))
    finally:
        os.close(root)


def _state(path: str, root: int) -> State:
    """Return what `file_state` does; below an open folder there is less to look up."""
    try:
        stat = os.stat(path, dir_fd=root)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _time(path: str, root: int) -> int:
    try:
        return os.stat(path, dir_fd=root).st_mtime_ns
    except OSError:
        return ABSENT


def _taken_apart(index: Index) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what has an entry an image, and the rest."""
    values = {field.name: getattr(index, field.name) for field in fields(index)}
    offers = {f"{OFFER}{kind}": list(held) for kind, held in values.pop("offers").items()}
    lists = {name: list(value) for name, value in values.items() if isinstance(value, list)}
    return lists | offers, {name: value for name, value in values.items() if name not in lists}


def _put_together(lists: Mapping[str, Any], rest: Mapping[str, Any]) -> Index:
    values: dict[str, Any] = {name: held for name, held in lists.items() if not name.startswith(OFFER)}
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in rest.items()}
    offers: Any = {name.removeprefix(OFFER): held for name, held in lists.items() if name.startswith(OFFER)}
    return Index(**values, offers=offers)


def _values(table: "pa.Table", name: str) -> list[Any]:
    found: list[Any] = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).tolist()
    return found


@cache
def _code() -> str:
    """Return a hash of what makes an index, so that nobody has to raise a number for it."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return blake2b(b"".join(source.read_bytes() for source in sources), digest_size=16).hexdigest()
