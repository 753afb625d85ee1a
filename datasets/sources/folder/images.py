"""Images of user data, and the names by which tables and lists refer to them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datasets.decoding.decode import stem_of, suffix_of
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.sources.folder.patterns import Part


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image: its id, its path below the root, and the published part that its folder names."""

    id: str
    path: str
    official: Part = ""


def stem_names(root: Path, images: Iterable[ImageFile]) -> dict[str, str]:
    """Return the ids of images by stem and by file name. Raises `DataError` if one of these names two images."""
    ids: dict[str, str] = {}
    for image in images:
        for name in (image.id, PurePosixPath(image.path).name):
            if ids.setdefault(normal(name), image.id) != image.id:
                raise DataError(
                    f"{root / image.path}: '{name}' names two images; allowed: names that differ without their endings "
                    "and in any Unicode form; rename one"
                )
    return ids


def path_names(images: Sequence[ImageFile]) -> dict[str, str]:
    """Return the ids of images by id, path, file name and any end of the path, without those that are ambiguous."""
    ids: dict[str, str] = {}
    ambiguous = set[str]()
    for image in images:
        folders = PurePosixPath(image.path).parts
        ends = {"/".join(folders[start:]) for start in range(len(folders))}
        suffix = suffix_of(image.path)
        for name in {normal(text) for end in ends for text in (end, end[: len(end) - len(suffix)])}:
            if ids.setdefault(name, image.id) != image.id:
                ambiguous.add(name)
    clear = {name: image for name, image in ids.items() if name not in ambiguous}
    return clear | {normal(image.id): image.id for image in images}


def images_in_folder(root: Path, paths: Sequence[str]) -> list[ImageFile]:
    """Return the images of the folder `images`, named by their stems. Raises `DataError` for files in subfolders."""
    nested = next((path for path in paths if path.count("/") > 1), None)
    if nested is not None:
        raise DataError(f"{root / nested} is in a subfolder; allowed: images/<name>.png; move it up")
    return [ImageFile(id=stem_of(path), path=path) for path in paths]


def named(name: str, ids: Mapping[str, str]) -> str | None:
    """Return the id of the image that a line of a list names, None if it names none.

    Some lists have further columns, and some name masks or other files after the image.
    """
    candidates = [normal(name), *map(normal, name.replace(",", " ").split()[:1])]
    for candidate in candidates:
        without_suffix = candidate[: len(candidate) - len(suffix_of(candidate))]
        for text in (candidate, without_suffix, candidate.rpartition("/")[2], stem_of(candidate)):
            if text in ids:
                return ids[text]
    return None
