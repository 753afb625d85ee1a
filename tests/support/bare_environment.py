"""A folder of packages as `pip install` of a few distributions would make it, from those that are installed here."""

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def link_distributions(names: Iterable[str], folder: Path) -> None:
    """Link distributions and all that they require into a folder, to be put on the path of `python -I -S`."""
    folder.mkdir()
    waiting, linked = list(names), set[str]()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in linked or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        linked.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another machine, such as libraries for GPUs
            continue
        _link(found, folder)
        waiting += found.requires or []


def _link(found: Distribution, folder: Path) -> None:
    for name in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if not (folder / name).exists():
            (folder / name).symlink_to(Path(str(found.locate_file(name))))
