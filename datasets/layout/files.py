"""The files of a data set as listed, without reading them."""

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, stem_of, suffix_of
from datasets.errors import DataError

MAX_FILES: Final = 500_000
"""Maximum number of files that are listed."""
SKIPPED: Final = frozenset({"__MACOSX", "Thumbs.db", "node_modules"})


@dataclass(frozen=True, kw_only=True)
class Files:
    """Paths below a root, with forward slashes, in order.

    Attributes:
        root: The folder.
        images: Images, volumes and masks.
        others: All other files.
        remarks: What was left out.
    """

    root: Path
    images: Sequence[str]
    others: Sequence[str]
    remarks: Sequence[str] = ()

    def named(self, *suffixes: str) -> list[str]:
        """Return the other files with one of some suffixes."""
        return [path for path in self.others if suffix_of(path) in suffixes]


def list_files(root: Path) -> Files:
    """List the visible files below a folder; links to parent folders and unreadable folders are left out.

    Raises `DataError` if the folder itself cannot be read, or has too many files.
    """
    remarks: list[str] = []
    paths = sorted(_walk(root, "", remarks, ()))
    images = [path for path in paths if suffix_of(path) in SUFFIXES | VOLUME_SUFFIXES]
    kept = set(images)
    return Files(root=root, images=images, others=[path for path in paths if path not in kept], remarks=remarks)


def _walk(root: Path, folder: str, remarks: list[str], ancestors: tuple[tuple[int, int], ...]) -> Iterator[str]:
    place = root / folder if folder else root
    try:
        status = place.stat()
        identity = status.st_dev, status.st_ino
        if identity in ancestors:
            remarks.append(f"{folder} is a link to one of its parent folders, and is not read")
            return
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError as error:
        if not folder:
            raise DataError(
                f"{root} cannot be read ({error.strerror}); allowed: a folder you may read; correct its permissions"
            ) from error
        remarks.append(f"{folder} cannot be read ({error.strerror})")
        return
    count = 0
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name[0] == "." or entry.name in SKIPPED or not _is_text(path):
            continue
        if entry.is_dir():
            yield from _walk(root, path, remarks, (*ancestors, identity))
        elif entry.is_file():
            count += 1
            if count > MAX_FILES:
                raise DataError(f"{place} has more than {MAX_FILES:,} files; allowed: fewer; name a folder inside")
            yield path


def _is_text(path: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in path)


def archived_names(path: Path) -> list[str] | None:
    """Return the names of the files in an archive, None for other files. Raises `DataError` for a damaged one."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return [name for name in archive.namelist() if not name.endswith("/")]
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as packed:
                return [member.name for member in packed if member.isfile()]
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error}); allowed: a complete archive; download it again") from error
    return None


def endings_of(paths: Sequence[str], count: int = 3) -> str:
    """Return the most frequent suffixes of files with their numbers: `.ppm: 36, .txt: 1`."""
    endings = Counter(Path(path).suffix.lower() or "without suffix" for path in paths)
    return ", ".join(f"{ending}: {number:,}" for ending, number in endings.most_common(count))


def stems(paths: Sequence[str]) -> list[str]:
    """Return the file names without folders and suffixes."""
    return [stem_of(path) for path in paths]


def spread(paths: Sequence[str], count: int) -> list[str]:
    """Return up to `count` paths, evenly spaced."""
    if len(paths) <= count:
        return list(paths)
    return [paths[number * (len(paths) - 1) // (count - 1)] for number in range(count)]
