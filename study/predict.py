"""Masks of pictures from trained networks: `study predict`."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.decode import read
from datasets.errors import DataError
from datasets.sample import Pixels
from study.answers import ABOUT, Answers, Precision
from study.choice import Choice
from study.model import Model, open_model
from study.own_test import OwnTest, own_test
from study.pictures import COMMAND, Picture, pictures, refuse_overwriting
from study.predictor import Predictor
from study.problems import Problem, Refused
from study.store import Store

LINE_SECONDS = 5.0
MUCH_LARGER = 2
"""`--tile auto` cuts images whose longer side is more than so many times that of the training images."""
AUTO = "auto"
Tiles = Callable[[Pixels], int | None]
"""Tells the side of a picture's tiles, None where it is shown as a whole."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for beside the network and the pictures."""

    output: Path
    size: int | None = None
    tile: str | None = None
    threshold: float | None = None
    overlay: bool = False
    probabilities: Precision | None = None
    cache: Path
    """Where indexes of data sets are kept."""


def predict(choice: Choice, store: Store, places: Sequence[Path], wanted: Wanted, say: Callable[[str], None]) -> bool:
    """Write what is wanted of every picture; return whether all could be read. Raises `Refused` where none could.

    Pictures that cannot be read are told of on stderr and left out.
    """
    planned = pictures(places, wanted.output)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [open_model(store, digest, device) for digest in choice.digests]
    record = models[0].record
    threshold = choice.threshold(record) if wanted.threshold is None else wanted.threshold
    answers = Answers(
        outputs=models[0].outputs, threshold=threshold, overlay=wanted.overlay, probabilities=wanted.probabilities
    )
    refuse_overwriting(planned, answers.endings)
    side = _tile(wanted.tile, models[0])
    networks = f"{len(models)} network{'s' if len(models) > 1 else ''}"
    say(f"{choice.told or choice.digests[0]}: {networks}, threshold {threshold:g}")
    own = own_test(choice, store, models, wanted.cache)
    unread = list(_written(Predictor(models), planned, answers, wanted, side, own))
    if len(unread) == len(planned):
        message = f"none of {len(planned)} images can be read; allowed: PNG, JPEG, TIFF and DICOM files; name others"
        raise Refused([Problem(path="", message=message)], COMMAND)
    told = {"stages": list(choice.digests), "cell": dict(choice.cell), "size": wanted.size, "tile": wanted.tile}
    answers.about(wanted.output, told | ({"dice": own.told()} if own is not None and own.found else {}))
    for line in own.lines() if own is not None else ():
        say(line)
    say(f"wrote masks of {len(planned) - len(unread)} images to {wanted.output}; {ABOUT} there says what they mean")
    if unread:
        say(f"{len(unread)} of {len(planned)} images could not be read")
    return not unread


def _tile(text: str | None, model: Model) -> Tiles:
    """Return the rule that `--tile` names."""
    if text is None:
        return lambda _: None
    if text != AUTO:
        if not (text.isascii() and text.isdigit()) or int(text) < 16:
            raise _refused("--tile", f"is {text}; allowed: auto, or 16 or more pixels; change it")
        return lambda _: int(text)
    side: int | None = model.record["data"].get("side")
    if side is None:
        message = f"is auto, and stage {model.digest[:8]} does not say how large its training images were"
        raise _refused("--tile", f"{message}; allowed: their longer side in pixels; give it")
    return lambda pixels: side if max(pixels.shape[:2]) > MUCH_LARGER * side else None


def _written(
    predictor: Predictor,
    planned: Sequence[Picture],
    answers: Answers,
    wanted: Wanted,
    side: Tiles,
    own: OwnTest | None,
) -> Iterator[Picture]:
    """Write the answers to every picture, and look for it among the study's own; yield those that cannot be read."""
    tell = _telling(len(planned))
    for done, picture in enumerate(planned, start=1):
        try:
            pixels = read(picture.file, "image")
        except DataError as error:
            tell(done, f"left out: {error}")
            yield picture
            continue
        try:
            answers.write(picture, *_answer(predictor, pixels, wanted.size, side(pixels)))
        except OSError as error:
            message = (
                f"{picture.output} cannot be written ({error.strerror}); allowed: a folder you may write, with room"
            )
            raise _refused("--output", f"{message}; choose another") from error
        if own is not None:
            own.look(picture.file, pixels)
        tell(done, "")


def _answer(predictor: Predictor, pixels: Pixels, size: int | None, tile: int | None) -> tuple[Pixels, Tensor]:
    """Return the picture and its probabilities at the size that is written."""
    import cv2

    height, width = pixels.shape[:2]
    goal = (size, size) if size else (height, width)
    shown = np.asarray(cv2.resize(pixels, goal[::-1], interpolation=cv2.INTER_AREA), np.uint8) if size else pixels
    if tile is None:
        return shown, predictor.whole(pixels, *goal)
    found = predictor.tiled(pixels, tile)
    if size:
        found = torch.nn.functional.interpolate(found[None], goal, mode="bilinear", align_corners=False)[0]
    return shown, found


def _telling(total: int) -> Callable[[int, str], None]:
    """Return a progress on stderr: one line rewritten on a terminal, a line every few seconds elsewhere."""
    told, terminal = time.monotonic(), sys.stderr.isatty()

    def tell(done: int, problem: str) -> None:
        nonlocal told
        if problem:
            sys.stderr.write(("\r\x1b[K" if terminal else "") + problem + "\n")
        if terminal:
            sys.stderr.write(f"\rpredicting: {done:,} of {total:,} images" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif time.monotonic() - told > LINE_SECONDS:
            told = time.monotonic()
            sys.stderr.write(f"predicting: {done:,} of {total:,} images\n")

    return tell


def _refused(path: str, message: str) -> Refused:
    return Refused([Problem(path=path, message=message)], COMMAND)
