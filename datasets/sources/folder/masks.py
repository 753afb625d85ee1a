"""Masks of user data: their files by image, and the names of their classes."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from datasets.cache.manifest import Listing
from datasets.decoding.decode import VOLUME_SUFFIXES, stem_of, suffix_of
from datasets.decoding.text import normal
from datasets.errors import DataError
from datasets.sources.common.class_ids import check_names, read_classes
from datasets.sources.common.published import MaskFile
from datasets.sources.folder.entries import SCRIBBLES, visible_files

LOSSLESS = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif", ".webp"}) | VOLUME_SUFFIXES


def masks_in(
    listing: Listing, folder: str, images: Mapping[str, str], *, overlapping: bool, lossy: bool = False
) -> Mapping[str, list[MaskFile]]:
    """Return the masks in a folder by the id of their image.

    Args:
        listing: The files.
        folder: The folder of the masks.
        images: The id of each image by the names that masks may have.
        overlapping: Whether there is a folder for each class.
        lossy: Whether the suffixes of lossy formats are allowed.
    """
    is_scribbles = folder == SCRIBBLES
    kind, files_name = ("no file of scribbles", "files") if is_scribbles else ("no mask", "masks")
    masks: dict[str, list[MaskFile]] = defaultdict(list)
    orphans = []
    for path in visible_files(listing, folder):
        file = PurePosixPath(path)
        if len(file.parts) != (3 if overlapping else 2) or not (lossy or suffix_of(path) in LOSSLESS):
            raise DataError(
                f"{listing.root / path} is {kind}; allowed: {folder}/<image>.png, or "
                f"{folder}/<class>/<image>.png for all; move or convert it"
            )
        stem = images.get(normal(stem_of(path)))
        if stem is None:
            orphans.append(path)
        else:
            masks[stem].append(MaskFile(path=path, name=file.parts[1] if overlapping else ""))
    if orphans:
        parent = orphans[0].rpartition("/")[0]
        remedy = _renaming([stem_of(path) for path in orphans if path.rpartition("/")[0] == parent], images)
        raise DataError(
            f"{listing.root / orphans[0]} belongs to no image ({len(orphans)} such {files_name}); allowed: the name of "
            f"a file in images/; {remedy}"
        )
    duplicated = [stem for stem, files in masks.items() if len({file.name for file in files}) < len(files)]
    if duplicated:
        raise DataError(
            f"{listing.root}: {duplicated[0]} has two {files_name} in {folder}; allowed: one (a class); remove one"
        )
    return masks


def class_names(masks: Iterable[Mapping[str, Sequence[MaskFile]]]) -> frozenset[str]:
    """Return the classes that have a folder of masks or scribbles; none for files of class ids."""
    return frozenset(mask.name for by_stem in masks for files in by_stem.values() for mask in files) - {""}


def check_scribbled(root: Path, scribbled: Collection[str], classes: Sequence[str]) -> None:
    """Raise `DataError` for scribbles of a class that is neither listed nor has masks, as some class has."""
    unknown = sorted(set(scribbled).difference(classes))
    if unknown:
        raise DataError(
            f"{root / SCRIBBLES / unknown[0]} is of a class without masks; allowed: {', '.join(classes)}; list all "
            "classes in classes.txt, or remove it"
        )


def _renaming(stems: Sequence[str], images: Mapping[str, str]) -> str:
    """Return the remedy for names of masks that match no image."""
    names = [normal(stem) for stem in stems]
    for image in images if len(names) > 1 else ():
        ending, beginning = names[0].removeprefix(image), names[0].removesuffix(image)
        if ending != names[0] and _is_majority(name.removesuffix(ending) in images for name in names):
            return f"remove the ending '{ending}' of the names in this folder"
        if beginning != names[0] and _is_majority(name.removeprefix(beginning) in images for name in names):
            return f"remove the beginning '{beginning}' of the names in this folder"
    return "rename it"


def _is_majority(tests: Iterable[bool]) -> bool:
    matches = list(tests)
    return 2 * sum(matches) > len(matches)


def listed_classes(root: Path, folders: Collection[str], *, overlapping: bool) -> tuple[str, ...] | None:
    """Return the classes that classes.txt lists or that have folders; None for ids without names."""
    return tuple(_names_of(root, sorted(folders))) if overlapping or (root / "classes.txt").exists() else None


def _names_of(root: Path, class_folders: Sequence[str]) -> Iterator[str]:
    path = root / "classes.txt"
    if not path.exists():
        yield from class_folders
        return
    names = read_classes(path, ids=not class_folders)
    check_names(names, path, ids=not class_folders)
    unknown = [name for name in class_folders if name not in names]
    if unknown or len(set(names)) < len(names):
        raise DataError(
            f"{path} lists {names}{f' beside the mask folders {class_folders}' if class_folders else ''}; allowed: "
            "each class once; correct the list"
        )
    yield from names
