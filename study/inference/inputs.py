"""Input images of `study predict`, and the paths of their output files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, split_channel, suffix_of
from study.errors import ConfigError, Problem

COMMAND = "study predict"
READ = SUFFIXES | VOLUME_SUFFIXES
"""Suffixes of the files that are read."""


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """A file of an image or volume, and the path of its output files without their suffix."""

    file: Path
    output: Path
    channels: tuple[Path, ...] = ()
    """Files with the further channels."""
    fault: str = ""
    """Why it cannot be predicted, "" if it can."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files of all channels."""
        return (self.file, *self.channels)

    def output_file(self, suffix: str) -> Path:
        """Return the path of an output file, such as with the suffix `_overlay.png`."""
        return self.output.with_name(self.output.name + suffix)


def find_images(paths: Sequence[Path], folder: Path | None, *, command: str = COMMAND) -> list[InputImage]:
    """Return the images among these files and folders, each once.

    Outputs keep the folder structure below a given folder. An output keeps the suffix of its image if another image
    has the same name without it.

    Args:
        paths: Files, and folders that are searched recursively.
        folder: The output folder, in which files are not inputs; None if nothing is written.
        command: The command, for messages.

    Raises:
        ConfigError: There are no images, or two images would have the same output.
    """
    outputs: dict[Path, Path] = {}
    for path in paths:
        for file, relative in _files(path, folder):
            outputs.setdefault(file.resolve(), (folder or Path()) / relative)
    if not outputs:
        shown = ", ".join(map(str, paths))
        where = f" outside the output folder {folder}" if folder is not None else ""
        message = f"{shown}: no images found{where}; allowed: {', '.join(sorted(READ))}, or folders of them; name some"
        raise ConfigError([Problem(path="", message=message)], command)
    stems = Counter(_case_insensitive(_without_suffix(output)) for output in outputs.values())
    images = []
    for file, output in outputs.items():
        is_unique = stems[_case_insensitive(_without_suffix(output))] == 1
        images.append(InputImage(file=file, output=_without_suffix(output) if is_unique else output))
    _check_unique_outputs(images)
    return images


def group_channels(images: Sequence[InputImage], numbers: Sequence[int]) -> list[InputImage]:
    """Return images of several files, `NAME_0000.nii.gz`, `NAME_0001.nii.gz`, ...; other channels are left out.

    Args:
        images: Images of one file.
        numbers: Numbers of the channels, in the order of the networks' input.
    """
    by_case: dict[Path, dict[int | None, InputImage]] = {}
    for image in images:
        case, number = split_channel(_without_suffix(image.file).name)
        output = image.output.with_name(case)
        by_case.setdefault(output, {})[number] = image
    return [_channels_of(output, files, numbers) for output, files in by_case.items()]


def _channels_of(output: Path, files: dict[int | None, InputImage], numbers: Sequence[int]) -> InputImage:
    missing = [f"{output.name}_{number:04d}" for number in numbers if number not in files]
    if missing:
        file = next(iter(files.values())).file
        needed = ", ".join(f"_{number:04d}" for number in numbers)
        fault = f"{file}: there is no {missing[0]}; allowed: a file for each channel ({needed}); add it"
        return InputImage(file=file, output=output, fault=fault)
    first, *others = (files[number].file for number in numbers)
    return InputImage(file=first, output=output, channels=tuple(others))


def _without_suffix(path: Path) -> Path:
    suffix = suffix_of(path.name)
    return path.with_name(path.name[: -len(suffix)]) if suffix in READ else path.with_suffix("")


def _files(path: Path, folder: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield image files with their relative output paths; files in the output folder are skipped."""
    if not path.is_dir():
        yield path, Path(path.name)  # a missing file is reported when it is read
        return
    for file in sorted(path.rglob("*")):
        is_output = folder is not None and folder.resolve() in file.resolve().parents
        if suffix_of(file.name) in READ and file.is_file() and not is_output:
            yield file, file.relative_to(path)


def _check_unique_outputs(images: Iterable[InputImage]) -> None:
    file_of: dict[str, Path] = {}
    for image in images:
        _reserve(image.output, image, file_of)


def check_outputs(images: Sequence[InputImage], suffixes_of: Callable[[InputImage], Sequence[str]]) -> None:
    """Raise `ConfigError` if an output file would overwrite an input image, or the output of another image.

    `suffixes_of` an image are those of all files that may be written for it.
    """
    files = {_case_insensitive(file) for image in images for file in image.files}
    file_of: dict[str, Path] = {}
    for image in images:
        for suffix in suffixes_of(image):
            output = image.output_file(suffix)
            if _case_insensitive(output.resolve()) in files:
                message = f"would replace the image {output}; allowed: another folder; choose one"
                raise ConfigError([Problem(path="--output", message=message)], COMMAND)
            _reserve(output, image, file_of)


def check_new(images: Sequence[InputImage], suffixes_of: Callable[[InputImage], Sequence[str]]) -> None:
    """Raise `ConfigError` if an output file exists, such as a true mask of that name."""
    existing = [
        file for image in images for suffix in suffixes_of(image) if (file := image.output_file(suffix)).exists()
    ]
    if existing:
        message = f"would replace {existing[0]} ({len(existing)} such files), and its folder has no predictions"
        remedy = "allowed: another folder, or that of earlier predictions; choose one"
        raise ConfigError([Problem(path="--output", message=f"{message}; {remedy}")], COMMAND)


def _reserve(output: Path, image: InputImage, file_of: dict[str, Path]) -> None:
    """Add the file of an image by its output. Raises `ConfigError` if another image has this output."""
    first = file_of.setdefault(_case_insensitive(output), image.file)
    if first != image.file:
        message = f"{first} and {image.file} would both be written as {output.name}"
        remedy = "allowed: different names in one call; give the second another output folder"
        raise ConfigError([Problem(path="", message=f"{message}; {remedy}")], COMMAND)


def _case_insensitive(path: Path) -> str:
    """Return a key that is equal for paths that are the same file on a case-insensitive file system."""
    return str(path).casefold()
