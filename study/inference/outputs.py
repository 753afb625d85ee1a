"""Output files of `study predict` for an image: masks, an overlay of their outlines, probabilities."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datasets.checks.contact import COLOURS
from datasets.decoding.decode import VOLUME_SUFFIXES, Decoded, displayed, suffix_of
from datasets.decoding.mask_volumes import mask_suffix, write_mask_volume
from datasets.source import Pixels
from models.tasks.base import Outputs
from results.postprocessing.rules import ClassRule
from study.inference.inputs import InputImage
from study.store.atomic import write_json
from study.training.prediction.bands import Band
from study.training.prediction.masks import Masks, PredictedMasks, ids_of, volume_masks

PNG, TIFF = ".png", ".tif"
"""Endings of masks of images, and of large ones."""
OVERLAY, ARRAYS, DESCRIPTION = "_overlay.png", ".npz", "predictions.json"
MAY_BE_VOLUME: Final = frozenset({".tif", ".tiff", ".svs", ".dcm"})
"""Suffixes of files that may have several pages or frames."""


class Precision(StrEnum):
    """Data type of stored probabilities."""

    float16 = "float16"
    float32 = "float32"


def mask_endings(image: Path, *, large: bool) -> tuple[str, ...]:
    """Return the endings that the masks of an image file may have, which depend on its pages if it has several.

    Args:
        image: The file.
        large: Whether its masks are large images; see `datasets.large`.
    """
    suffix = suffix_of(image.name)
    if suffix in VOLUME_SUFFIXES:
        return (mask_suffix(image),)
    single = TIFF if large else PNG
    return tuple(dict.fromkeys((single, mask_suffix(image)))) if suffix in MAY_BE_VOLUME else (single,)


@dataclass(frozen=True, kw_only=True)
class PredictionWriter:
    """Writes the predictions of images.

    `threshold` is the probability from which a pixel belongs to a class, `rules` the post-processing of each class.
    """

    outputs: Outputs
    threshold: float
    rules: tuple[ClassRule, ...] = ()
    overlay: bool = False
    probabilities: Precision | None = None

    def suffixes(self, *endings: str) -> list[str]:
        """Return the suffixes of all output files of an image whose masks have one of these endings."""
        masks = [suffix for ending in endings for suffix in self.mask_suffixes(ending)]
        extra = [OVERLAY] if self.overlay else []
        return masks + extra + ([ARRAYS] if self.probabilities else [])

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the class of each channel of the probabilities."""
        return ("background", *self.outputs.names) if self.outputs.exclusive else self.outputs.names

    def predicted(self, slices: int, height: int, width: int) -> PredictedMasks:
        """Return the masks of an image or a volume, to be filled in."""
        return PredictedMasks(self.outputs, self.threshold, (slices, height, width), self.rules)

    def masks(self, bands: Iterable[Band], size: tuple[int, int]) -> Masks:
        """Return the masks (classes, H, W) of the bands of an image; those of a large one are memory-mapped."""
        predicted = self.predicted(1, *size)
        for top, probabilities in bands:
            predicted.add(probabilities, lines=slice(top, top + probabilities.shape[1]))
        predicted.postprocess()
        masks: Masks = predicted.masks[:, 0]
        return masks

    def write(self, image: InputImage, pixels: Pixels, probabilities: Tensor) -> Masks:
        """Write the files of one image and return its masks (classes, H, W).

        The pixels of the image have the size of the probabilities (channels, H, W).
        """
        image.output.parent.mkdir(parents=True, exist_ok=True)
        height, width = probabilities.shape[-2:]
        masks = self.masks([Band(0, probabilities)], (height, width))
        if self.outputs.exclusive:
            save_png(ids_of(masks), image.output_file(PNG))
        else:
            for suffix, mask in zip(self.mask_suffixes(PNG), masks, strict=True):
                save_png(mask.astype(np.uint8) * np.uint8(255), image.output_file(suffix))
        if self.overlay:
            save_png(draw_outlines(pixels, masks), image.output_file(OVERLAY))
        if self.probabilities:
            values = probabilities.numpy().astype(self.probabilities.value)
            np.savez_compressed(image.output_file(ARRAYS), probabilities=values, names=np.array(self.channels))
        return masks

    def write_volume(self, image: InputImage, volume: Decoded, probabilities: Iterable[Tensor]) -> Masks:
        """Write the files of a volume and return its masks (classes, slices, H, W).

        Masks have the format of the volume (`datasets.decoding.mask_volumes`). The overlay shows the slice with the
        largest masks.

        Args:
            image: Paths of the volume and its output.
            volume: The volume, of which `pixels` are (slices, H, W[, 3]).
            probabilities: (channels, H, W) of each slice.
        """
        image.output.parent.mkdir(parents=True, exist_ok=True)
        slices, axis = volume.pixels, volume.geometry.axis
        stored = []

        def parts() -> Iterator[Tensor]:
            for part in probabilities:
                if self.probabilities:
                    stored.append(part.numpy().astype(self.probabilities.value))
                yield part

        masks = volume_masks(self.predicted(*slices.shape[:3]), parts(), volume.geometry.frame_order)
        arrays = iter([ids_of(masks)] if self.outputs.exclusive else (mask.astype(np.uint8) for mask in masks))
        for suffix, array in zip(self.mask_suffixes(mask_suffix(image.file)), arrays, strict=True):
            write_mask_volume(array, axis, image.file, image.output_file(suffix))
        if self.overlay:
            number = largest_slice(masks)
            save_png(draw_outlines(slices[number], masks[:, number]), image.output_file(OVERLAY))
        if self.probabilities:
            values = np.stack(stored, axis=1)
            np.savez_compressed(image.output_file(ARRAYS), probabilities=values, names=np.array(self.channels))
        return masks

    def write_description(self, folder: Path, record: Mapping[str, object], endings: Collection[str]) -> None:
        """Write `predictions.json`: `record`, the threshold, the meaning of mask files and overlay colours.

        `endings` are those of the masks that were written. Classes have one suffix, or several of different endings.
        """
        names = self.outputs.names
        legend: dict[str, object] = {"ids": dict(enumerate(self.channels))} if self.outputs.exclusive else {}
        if endings and not self.outputs.exclusive:
            suffixes = list(zip(*(self.mask_suffixes(ending) for ending in sorted(endings)), strict=True))
            files = [list(of_class) if len(of_class) > 1 else of_class[0] for of_class in suffixes]
            legend["files"] = dict(zip(names, files, strict=True))
        legend |= {"colours": {name: _hex(number) for number, name in enumerate(names)}} if self.overlay else {}
        write_json(folder / DESCRIPTION, {**record, "threshold": self.threshold, **legend})

    def mask_suffixes(self, ending: str) -> list[str]:
        """Return the suffix of the mask file, or of those of overlapping classes."""
        return [f"{name}{ending}" for name in self._mask_names]

    @property
    def _mask_names(self) -> list[str]:
        """Return what the names of the mask files add to that of the image: one of ids, or one for each class."""
        if self.outputs.exclusive:
            return [""]
        safe_names = [re.sub(r"[^\w.+-]+", "_", name) for name in self.outputs.names]
        unique = [
            name if safe_names.index(name) == number else f"{name}_{number + 1}"
            for number, name in enumerate(safe_names)
        ]
        return [f"_{name}" for name in unique]


def largest_slice(masks: Masks) -> int:
    """Return the number of the slice with the largest masks (classes, slices, H, W), which overlays show."""
    return int(masks.sum(axis=(0, 2, 3)).argmax())


def draw_outlines(pixels: Pixels, masks: NDArray[np.bool_]) -> Pixels:
    """Return the image (H, W, 3) with the outlines of masks (classes, H, W) in the colours of their classes."""
    import cv2

    pixels = displayed(pixels)
    overlay = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels.copy()
    width = max(1, round(max(masks.shape) / 400))
    for number, mask in enumerate(masks):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(overlay, contours, -1, _rgb(number), width)
    return overlay


def _hex(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _rgb(number: int) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(_hex(number).removeprefix("#"))
    return red, green, blue


def save_png(pixels: Pixels, path: Path) -> None:
    """Write (H, W) grey or (H, W, 3) RGB."""
    import cv2

    bgr = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
