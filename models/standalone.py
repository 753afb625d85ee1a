"""Runs an exported network with torch, segmentation-models-pytorch and numpy alone.

`study export` copies this file as `predict.py` beside the network, so it imports nothing else:

    model = load(".")
    prediction = model.predict(read("image.png"))

Only contrast equalisation (`prepare: {equalise: ...}`) and preprocessing of colour images also need OpenCV.
"""

import importlib
import importlib.util
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

SETTINGS = "study.json"
"""Settings of the network in an exported folder; a .safetensors file has them in its header."""
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
Image = NDArray[np.uint8]
Weights = NDArray[np.float32]


def declare_missing_schemas() -> torch.library.Library:
    """Declare operators that are missing in torchvision's compiled library; the result must be kept alive.

    These operators do not load with a torch version that torchvision was not built for, such as a build for CPUs, and
    its Python code then fails on `torchvision::nms`. Declaring the schema is enough, as no network here calls it.
    """
    _load_compiled_operators()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]
    return library


def _load_compiled_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).glob("_C*")):
            try:
                torch.ops.load_library(path)  # type: ignore[no-untyped-call]
            except OSError:
                continue


_library = declare_missing_schemas()


@dataclass(frozen=True)
class Prediction:
    """The prediction of an image.

    Attributes:
        channels: The class of each channel of `probabilities`; the background first if classes exclude each other.
        probabilities: float32 (channels, H, W) in 0..1.
        masks: bool (classes, H, W), before post-processing.
    """

    channels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    masks: NDArray[np.bool_]


class ExportedModel:
    """A network with the preprocessing of its images.

    Attributes:
        network: Maps normalised images (N, channels, H, W) to logits (N, outputs, H, W).
        settings: Its settings, as `study export` describes them.
    """

    def __init__(self, network: nn.Module, settings: Mapping[str, Any]) -> None:
        self.network, self.settings = network.eval(), settings
        self.classes: tuple[str, ...] = tuple(settings["classes"])
        self.channels = ("background", *self.classes) if settings["exclusive"] else self.classes
        size = settings["size"]
        self.shape: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])

    @torch.no_grad()
    def predict(
        self, image: Image, *, size: tuple[int, int] | None = None, spacing: tuple[float, float] | None = None
    ) -> Prediction:
        """Return the prediction of an image.

        Args:
            image: uint8 (H, W) grey or (H, W, C).
            size: Height and width of the masks; default: those of the image.
            spacing: Height and width of a pixel in mm, needed if `settings["spacing"]` is set.
        """
        prepared = self.prepare(image)
        new_size = size or (image.shape[0], image.shape[1])
        if self.settings["fit"] == "patch":
            probabilities = _resized_maps(self._windows(self._scaled(prepared, spacing)), new_size)
        else:
            top, left, height, width = self._inner(image.shape[0], image.shape[1])
            fitted = np.zeros((*self.shape, prepared.shape[2]), np.uint8)
            shrinks = height < image.shape[0] or width < image.shape[1]
            fitted[top : top + height, left : left + width] = resize(prepared, height, width, shrinks=shrinks)
            maps = self._probabilities(fitted[None])[0]
            probabilities = _resized_maps(maps[:, top : top + height, left : left + width], new_size)
        return Prediction(self.channels, probabilities.numpy(), self._masks(probabilities).numpy())

    def prepare(self, image: Image) -> Image:
        """Return an image with the channels of the network, (H, W, channels), after `prepare` of the study file."""
        channels, given = self.settings["channels"], image.shape[2] if image.ndim == 3 else 1
        if image.dtype != np.uint8 or (given != channels and {given, channels} != {1, 3}):
            raise ValueError(
                f"the image is {image.dtype} with {given} channels; allowed: uint8 with {channels} channels, or grey "
                "for colour and colour for grey; convert it"
            )
        if image.ndim == 3 and channels == 1:
            image = luma(image) if given == 3 else image[..., 0]
        image = _enhanced(image, self.settings["prepare"])
        planes = image[..., None] if image.ndim == 2 else image
        return np.ascontiguousarray(np.broadcast_to(planes, (*planes.shape[:2], channels)))

    def _inner(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return top, left, height and width of an image within the input."""
        rows, columns = self.shape
        if self.settings["fit"] == "stretch":
            return 0, 0, rows, columns
        if height * columns >= width * rows:
            inner = rows, max(1, round(rows * width / height))
        else:
            inner = max(1, round(columns * height / width)), columns
        return (rows - inner[0]) // 2, (columns - inner[1]) // 2, *inner

    def _scaled(self, image: Image, spacing: tuple[float, float] | None) -> Image:
        scale, wanted = self.settings["scale"], self.settings["spacing"]
        if wanted is not None and spacing is None:
            raise ValueError(f"the network expects pixels of {wanted:g} mm; allowed: spacing, the size of a pixel")
        factors = (scale, scale) if wanted is None or spacing is None else (spacing[0] / wanted, spacing[1] / wanted)
        height, width = (max(1, round(side * by)) for side, by in zip(image.shape[:2], factors, strict=True))
        return resize(image, height, width, shrinks=min(factors) < 1)

    def _windows(self, image: Image) -> Tensor:
        """Return the probabilities of an image in windows that overlap by half, weighted towards their centres."""
        (rows, columns), (height, width) = self.shape, image.shape[:2]
        padding = ((0, max(rows - height, 0)), (0, max(columns - width, 0)), (0, 0))
        padded = np.pad(image, padding, mode="symmetric")
        down, across = (1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5) for side in self.shape)
        weight = down[:, None] * across
        total = torch.zeros(padded.shape[:2])
        sums = torch.zeros(len(self.channels), *padded.shape[:2])
        for top, left in product(_starts(padded.shape[0], rows), _starts(padded.shape[1], columns)):
            part = (slice(top, top + rows), slice(left, left + columns))
            sums[:, *part] += self._probabilities(padded[part][None])[0] * weight
            total[part] += weight
        return (sums / total)[:, :height, :width].clamp(0.0, 1.0)

    def _probabilities(self, inputs: Image) -> Tensor:
        """Return the mean probabilities (N, channels, H, W) of inputs (N, H, W, channels) over views of them."""
        images = torch.from_numpy(inputs).movedim(-1, 1).float() / 255.0
        mean, std = (torch.tensor(self.settings[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
        views = list(_views(self.settings["tta"]))
        maps = []
        for mirrored, turns in views:
            view = torch.rot90(images.flip(-1) if mirrored else images, turns, (-2, -1))
            logits = self.network((view - mean) / std).float()
            output = logits.softmax(dim=1) if self.settings["exclusive"] else logits.sigmoid()
            turned = torch.rot90(output, -turns, (-2, -1))
            maps.append(turned.flip(-1) if mirrored else turned)
        return torch.stack(maps).mean(dim=0)

    def _masks(self, probabilities: Tensor) -> Tensor:
        """Return bool (classes, H, W): the most probable class of several exclusive ones, else by the threshold."""
        threshold = float(self.settings["threshold"])
        if not self.settings["exclusive"]:
            return probabilities >= threshold
        if len(self.classes) == 1:
            return probabilities[1:] >= threshold
        labels = probabilities.argmax(dim=0)
        return torch.stack([labels == number for number in range(1, len(self.channels))])


def load(path: str | Path) -> ExportedModel:
    """Load an exported folder or .safetensors file."""
    place = Path(path)
    with warnings.catch_warnings():
        # Image files are not read or written with torchvision here.
        warnings.filterwarnings("ignore", message="Failed to load image Python extension", category=UserWarning)
        smp = importlib.import_module("segmentation_models_pytorch")
    if place.is_dir():
        settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
        return ExportedModel(smp.from_pretrained(place), settings)
    safetensors = importlib.import_module("safetensors")
    with safetensors.safe_open(place, "pt") as file:
        settings = {name: _value(text) for name, text in file.metadata().items()}
        tensors = {name.replace("head.", "segmentation_head.", 1) if name.startswith("head.") else name:
                   file.get_tensor(name) for name in file.keys()}  # fmt: skip  # noqa: SIM118 - not a mapping
    library = settings["library"]
    if library is None:
        name = settings["architecture"]
        raise ValueError(
            f"{name} is none of segmentation-models-pytorch; allowed: its networks; use ONNX or the platform"
        )
    network = getattr(smp, library["model"])(**library["arguments"])
    known = network.state_dict()
    network.load_state_dict({**known, **{name: value for name, value in tensors.items() if name in known}})
    return ExportedModel(network, settings)


def read(path: str | Path) -> Image:
    """Return an image file as the network was trained on it, uint8 (H, W) or (H, W, 3), by Pillow.

    Palettes are expanded, alpha is dropped, and grey of more than 8 bits is scaled from its finite range. Files of
    volumes, other numbers of channels and DICOM are not read.
    """
    pillow = importlib.import_module("PIL.Image")
    with pillow.open(path) as image:
        if not image.mode.startswith("I") and any("16" in str(tile[-1]) for tile in getattr(image, "tile", ())):
            raise ValueError(f"{path} has 16 bits for each of several channels; allowed: 8 bits; convert it")
        if image.mode not in ("L", "RGB", "F") and not image.mode.startswith("I"):
            values = np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))
        else:
            values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    valid, values = np.isfinite(values), values.astype(np.float64)
    if not valid.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[valid].min(), values[valid].max()
    scaled = (np.where(valid, values, low) - low) / max(high - low, 1e-12)
    return np.asarray(np.rint(scaled * 255), np.uint8)


def _value(text: str) -> Any:  # noqa: ANN401 - whatever the header holds
    try:
        return json.loads(text)
    except ValueError:
        return text


def luma(pixels: Image) -> Image:
    """Return (H, W) grey of (H, W, 3) RGB (ITU-R BT.601), rounded as OpenCV does."""
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return np.asarray((red * 9798 + green * 19235 + blue * 3735 + 16384) >> 15, np.uint8)


def resize(pixels: Image, height: int, width: int, *, shrinks: bool) -> Image:
    """Resize (H, W, C): by area averaging if it `shrinks`, else linearly; values differ from OpenCV's by at most 1."""
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    by_area = shrinks and height <= rows and width <= columns
    down, across = (
        _area(length, new) if by_area else _linear(length, new, by_area=shrinks)
        for length, new in ((rows, height), (columns, width))
    )
    resized = np.einsum("ij,jkc,lk->ilc", down, pixels.astype(np.float32), across, optimize=True)
    return np.asarray(np.rint(resized).clip(0, 255), np.uint8)


def _area(length: int, new_length: int) -> Weights:
    """Return (new_length, length) shares of area."""
    ratio = length / new_length
    edges = np.arange(new_length)[:, None] * ratio
    places = np.arange(length)[None]
    shares = np.clip(np.minimum(places + 1, edges + ratio) - np.maximum(places, edges), 0, None)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _linear(length: int, new_length: int, *, by_area: bool) -> Weights:
    """Return (new_length, length) weights of linear interpolation, as OpenCV has it where only one side shrinks."""
    ratio, number = length / new_length, np.arange(new_length)
    if by_area:
        lower = np.floor(number * ratio).astype(int)
        share = (number + 1) - (lower + 1) / ratio
        share = np.where(share <= 0, 0.0, share - np.floor(share))
    else:
        places = (number + 0.5) * ratio - 0.5
        lower = np.floor(places).astype(int)
        share = places - lower
    weights = np.zeros((new_length, length), np.float32)
    np.add.at(weights, (number, lower.clip(0, length - 1)), 1 - share)
    np.add.at(weights, (number, (lower + 1).clip(0, length - 1)), share)
    return weights


def _enhanced(image: Image, prepare: Mapping[str, Any]) -> Image:
    """Return (H, W) or (H, W, C) after preprocessing; of RGB only the lightness changes."""
    if not prepare["normalise"] and prepare["equalise"] is None and prepare["gamma"] == 1:
        return image
    if image.ndim == 2:
        return _grey(image, prepare)
    if image.shape[2] != 3:
        return np.stack([_grey(image[..., channel], prepare) for channel in range(image.shape[2])], axis=2)
    cv2 = importlib.import_module("cv2")
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = _grey(np.ascontiguousarray(lab[..., 0]), prepare)
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def _grey(pixels: Image, prepare: Mapping[str, Any]) -> Image:
    low, high = int(pixels.min()), int(pixels.max())
    if prepare["normalise"] and low < high:
        pixels = np.rint((pixels.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    if prepare["equalise"] is not None:
        cv2 = importlib.import_module("cv2")
        tiles = prepare["equalise"]["tiles"]
        pixels = np.asarray(cv2.createCLAHE(prepare["equalise"]["clip"], (tiles, tiles)).apply(pixels), np.uint8)
    if prepare["gamma"] != 1:
        pixels = np.rint(255 * (np.arange(256) / 255) ** prepare["gamma"]).astype(np.uint8)[pixels]
    return pixels


def _resized_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (C, H, W) at another size."""
    if maps.shape[-2:] == size:
        return maps
    return interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].clamp(0.0, 1.0)


def _starts(length: int, side: int) -> Sequence[int]:
    """Return the offsets of evenly spaced windows that overlap by half."""
    steps = max(0, -(-(length - side) * 2 // side))
    return sorted({round(start) for start in np.linspace(0, length - side, steps + 1)})


def _views(tta: Sequence[str]) -> Iterator[tuple[bool, int]]:
    """Yield whether a view is mirrored and its quarter turns, each view once, the image itself first."""
    flips, vertical_flips = ([False, True] if name in tta else [False] for name in ("flip", "vertical_flip"))
    turns = range(4 if "rotate" in tta else 1)
    views = (
        (flip != vertical, (turn + 2 * vertical) % 4) for flip, vertical, turn in product(flips, vertical_flips, turns)
    )
    yield from dict.fromkeys(views)
