"""What is written about a picture: masks, outlines over it, probabilities."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.contact import COLOURS
from datasets.sample import Pixels
from models.counts import predicted_ids, predicted_masks
from models.tasks.base import Outputs
from study.files import write_json
from study.pictures import Picture

OVERLAY, ARRAYS, ABOUT = "_overlay.png", ".npz", "predictions.json"


class Precision(StrEnum):
    """How probabilities are stored."""

    float16 = "float16"
    float32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What to write of each picture, and from which probability on a pixel counts."""

    outputs: Outputs
    threshold: float
    overlay: bool = False
    probabilities: Precision | None = None

    @property
    def endings(self) -> list[str]:
        """Return the endings of all files that one picture gets."""
        masks = [".png"] if self.outputs.exclusive else list(self._masks())
        extra = [OVERLAY] if self.overlay else []
        return masks + extra + ([ARRAYS] if self.probabilities else [])

    def write(self, picture: Picture, pixels: Pixels, found: Tensor) -> None:
        """Write the files of one picture: its pixels and its probabilities (channels, H, W) of equal size."""
        picture.output.parent.mkdir(parents=True, exist_ok=True)
        masks = predicted_masks(found[None], exclusive=self.outputs.exclusive, threshold=self.threshold)[0].numpy()
        if self.outputs.exclusive:
            ids = predicted_ids(found[None], threshold=self.threshold)[0]
            _save(ids.to(torch.uint8).numpy(), picture.named(".png"))
        else:
            for ending, mask in zip(self._masks(), masks, strict=True):
                _save(mask.astype(np.uint8) * np.uint8(255), picture.named(ending))
        if self.overlay:
            _save(outlined(pixels, masks), picture.named(OVERLAY))
        if self.probabilities:
            values = found.numpy().astype(self.probabilities.value)
            np.savez_compressed(picture.named(ARRAYS), probabilities=values, names=np.array(self.channels))

    @property
    def channels(self) -> tuple[str, ...]:
        """Return what the channels of the probabilities are."""
        return ("background", *self.outputs.names) if self.outputs.exclusive else self.outputs.names

    def about(self, folder: Path, told: Mapping[str, object]) -> None:
        """Write what the files mean, and the colours of outlines, beside them."""
        names = self.outputs.names
        meaning: dict[str, object] = {"ids": dict(enumerate(self.channels))} if self.outputs.exclusive else {}
        meaning |= {"files": dict(zip(names, self.endings, strict=False))} if not self.outputs.exclusive else {}
        meaning |= {"colours": {name: _hex(number) for number, name in enumerate(names)}} if self.overlay else {}
        write_json(folder / ABOUT, {**told, "threshold": self.threshold, **meaning})

    def _masks(self) -> Sequence[str]:
        """Return the endings of the masks of overlapping classes."""
        words = [re.sub(r"[^\w.+-]+", "_", name) for name in self.outputs.names]
        unlike = [word if words.index(word) == at else f"{word}_{at + 1}" for at, word in enumerate(words)]
        return [f"_{word}.png" for word in unlike]


def outlined(pixels: Pixels, masks: NDArray[np.bool_]) -> Pixels:
    """Return (H, W, 3): the picture with the outlines of masks (classes, H, W) in their colours."""
    import cv2

    drawn = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    width = max(1, round(max(masks.shape) / 400))
    for number, mask in enumerate(masks):
        found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, found, -1, _rgb(number), width)
    return drawn


def _hex(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _rgb(number: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(_hex(number).removeprefix("#"))
    return red, green, blue


def _save(pixels: Pixels, path: Path) -> None:
    import cv2

    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(".png", ordered)[1].tobytes())
