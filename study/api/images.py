"""The images that `Study.predict` is given: checked before networks are loaded."""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.decoding.decode import pixels_of
from datasets.errors import DataError
from datasets.source import Pixels
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from study.inference.arrays import Prediction
    from study.inference.networks import CellNetworks

COMMAND = "study predict"


def checked_images(images: object) -> tuple[list[Path | Pixels], bool]:
    """Return paths and arrays of 8 bits, and whether it is one image.

    Raises:
        ConfigError: There is no image, one is neither an array nor a path that exists, or one alone is a folder.
    """
    listed = [*images] if isinstance(images, list | tuple) else [images]
    single = not isinstance(images, list | tuple)
    if not listed:
        raise predict_error("the list of images is empty; allowed: at least one image; add some")
    return [_checked(image, single=single) for image in listed], single


def _checked(image: object, *, single: bool) -> Path | Pixels:
    if not isinstance(image, str | Path):
        try:
            return pixels_of(image, "the image")
        except DataError as error:
            raise predict_error(str(error)) from error
    if not str(image):
        raise predict_error("the path of an image is empty; allowed: a file or folder; name one")
    path = Path(image)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise predict_error(f"{image} cannot be read ({reason}); allowed: a readable file; restore it") from error
    if single and path.is_dir():
        raise predict_error(f"{image} is a folder; allowed: one image, or a list; write [{str(image)!r}]")
    return path


def predict_images(
    networks: "CellNetworks", images: "Sequence[Path | Pixels]", *, single: bool, spacing: Any  # noqa: ANN401 - checked
) -> "Iterator[Prediction]":  # fmt: skip
    """Yield the predictions of checked images; consecutive paths may be the files of one image's channels."""
    from study.inference.arrays import predict_array, predict_files

    numbers = networks.first.channel_files
    if single and isinstance(images[0], Path) and len(numbers) > 1:
        needed = ", ".join(f"_{number:04d}" for number in numbers)
        message = f"{images[0]} is one of the files of an image, one for each channel ({needed})"
        raise predict_error(f"{message}; allowed: a list of all its files, or of their folder; write a list")
    for is_path, run in groupby(images, lambda image: isinstance(image, Path)):
        if not is_path:
            for image in run:
                yield predict_array(networks, image, spacing=spacing)
            continue
        paths = [path for path in run if isinstance(path, Path)]
        for files in [paths] if numbers else [[path] for path in paths]:
            yield from predict_files(networks, files)


def predict_error(message: str) -> ConfigError:
    """Return the error of invalid arguments of `Study.predict`."""
    return ConfigError([Problem(path="", message=message)], COMMAND)
