"""Files and folders of the layout, and what is misspelled among them."""

from collections.abc import Sequence
from pathlib import Path

from datasets.cache.manifest import Listing
from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, suffix_of
from datasets.errors import DataError

SCRIBBLES = "scribbles"
FOLDERS = {
    "image": "images", "images": "images", "mask": "masks", "masks": "masks", "scribble": SCRIBBLES,
    "scribbles": SCRIBBLES,
}  # fmt: skip
TABLES = {
    "case": "cases.csv", "cases": "cases.csv", "patients": "cases.csv", "labels": "labels.csv", "boxes": "boxes.csv",
    "centers": "centres.csv", "centres": "centres.csv", "points": "points.csv",
}  # fmt: skip
"""Correct names by common misspellings of tables."""
SHEETS = frozenset({".csv", ".tsv", ".xls", ".xlsx", ".ods"})


def visible_files(listing: Listing, folder: str) -> list[str]:
    """Return the files below a folder, except in hidden folders, in which some tools keep copies."""
    return [path for path in listing.inside(folder) if "/." not in path]


def holds_images(folder: Path) -> bool:
    """Return whether a path is a visible folder with an image or volume at any depth."""
    if folder.name[0] == "." or not folder.is_dir():
        return False
    suffixes = SUFFIXES | VOLUME_SUFFIXES
    return any(suffix_of(path.name) in suffixes for path in folder.rglob("[!.]*"))


def check_folders(root: Path, names: Sequence[str]) -> None:
    """Raise `DataError` if a folder of masks is missing."""
    for name in names:
        if not (root / name).is_dir():
            raise DataError(f"{root / name} is no folder; allowed: the masks of an annotator; correct `annotators`")


def check_entries(root: Path, mask_folders: Sequence[str]) -> None:
    """Raise `DataError` for misspelled folders and tables, and for separate folders for each part of the data."""
    for entry in sorted(entry for entry in root.iterdir() if entry.name not in mask_folders):
        if entry.is_dir():
            name = FOLDERS.get(entry.name.casefold())
        elif entry.suffix.lower() in SHEETS:
            name = TABLES.get(entry.stem.casefold())
        else:
            name = "classes.txt" if entry.name.casefold() == "classes.txt" else None
        if name is not None and not (root / name).exists():
            raise DataError(f"{entry} is not read; allowed: {name}, spelled like this; rename or convert it")
    if (root / "images").is_dir():
        return
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        if (folder / "images").is_dir():
            raise DataError(
                f"{root} has no folder images, but {folder.name}/images; allowed: images below `root`; set root to "
                f"{folder}, or move all images together and name the test images with split.test"
            )
