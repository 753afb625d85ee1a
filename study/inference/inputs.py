"""Pictures that a user names, and where the answers to each are written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.decoding.decode import SUFFIXES
from study.errors import ConfigError, Problem

COMMAND = "study predict"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A file to read, and the start of the names of what is written about it."""

    file: Path
    output: Path

    def named(self, ending: str) -> Path:
        """Return an output file, such as with the ending `_overlay.png`."""
        return self.output.with_name(self.output.name + ending)


def pictures(places: Sequence[Path], folder: Path) -> list[Picture]:
    """Return the pictures of files and folders, each once; folders below a named one are kept in the output.

    Names that differ in their suffix alone keep it. Raises `ConfigError` where there are none, or two would be
    written to one place.
    """
    found: dict[Path, Path] = {}
    for place in places:
        for file, relative in _files(place, folder):
            found.setdefault(file.resolve(), folder / relative)
    if not found:
        shown = ", ".join(map(str, places))
        message = f"{shown}: no image is there; allowed: {', '.join(sorted(SUFFIXES))}, or folders of them; name some"
        raise ConfigError([Problem(path="", message=message)], COMMAND)
    stems = Counter(_key(place.with_suffix("")) for place in found.values())
    planned = [
        Picture(file=file, output=place if stems[_key(place.with_suffix(""))] > 1 else place.with_suffix(""))
        for file, place in found.items()
    ]
    _refuse_two_in_one_place(planned)
    return planned


def _files(place: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield files with their names in the output; what lies in the output folder is an answer, not a picture."""
    if not place.is_dir():
        yield place, Path(place.name)  # one that is not there is told of when it is read
        return
    answers = folder.resolve()
    for file in sorted(place.rglob("*")):
        if file.suffix.lower() in SUFFIXES and file.is_file() and answers not in file.resolve().parents:
            yield file, file.relative_to(place)


def _refuse_two_in_one_place(planned: Iterable[Picture]) -> None:
    first: dict[str, Path] = {}
    for picture in planned:
        other = first.setdefault(_key(picture.output), picture.file)
        if other != picture.file:
            message = f"{other} and {picture.file} would both be written as {picture.output.name}"
            remedy = "allowed: different names in one call; give the second another output folder"
            raise ConfigError([Problem(path="", message=f"{message}; {remedy}")], COMMAND)


def refuse_overwriting(planned: Sequence[Picture], endings: Sequence[str]) -> None:
    """Raise `ConfigError` where an answer would replace a picture."""
    files = {picture.file for picture in planned}
    for picture in planned:
        for ending in endings:
            if picture.named(ending).resolve() in files:
                message = f"would replace the image {picture.named(ending)}; allowed: another folder; choose one"
                raise ConfigError([Problem(path="--output", message=message)], COMMAND)


def _key(place: Path) -> str:
    """Return what is equal for names that some file systems hold for one."""
    return str(place).casefold()
