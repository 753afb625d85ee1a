"""The networks of a cell, and how they predict an image: as in training, and as they were scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from datasets.decoding.decode import Decoded, examine_file
from datasets.decoding.spacing_json import with_spacing
from datasets.errors import DataError
from datasets.source import Pixels
from datasets.targets import check_channels
from results.postprocessing.rules import ClassRule
from study.errors import ConfigError, Problem
from study.inference import MAX_SIDE, MIN_SIDE
from study.inference.inputs import COMMAND, InputImage
from study.inference.out_of_fold import Selection, StudyImage, StudyImages, networks_for
from study.inference.predictor import Predictor
from study.inference.scored_evaluation import ScoredEvaluation
from study.inference.select import Choice
from study.store.store import Store
from study.training.load_model import Model, open_model

AUTO_TILE_FACTOR = 2
"""`--tile auto` cuts images whose longer side exceeds that of the training images by this factor."""
AUTO = "auto"
TileRule = Callable[[Pixels], int | None]
"""Returns the side of the tiles of an image, None for an image that is predicted as a whole."""


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How networks predict."""

    cache: Path
    """Folder of the indexes of data sets."""
    threshold: float | None = None
    tile: str | None = None
    postprocess: bool = True
    """Whether masks are post-processed as they were for the scores."""
    tta: bool = True
    """Whether the test-time augmentation of the scores is used."""
    ensemble: bool = False
    """Whether all networks predict the study's own images too."""


@dataclass(frozen=True, kw_only=True)
class CellNetworks:
    """The networks of a cell; see `open_networks`."""

    choice: Choice
    models: Mapping[str, Model]
    """By digest."""
    scored: ScoredEvaluation
    """Test-time augmentation and post-processing that are used."""
    has_tta: bool
    """Whether the scores are with test-time augmentation."""
    options: NetworkOptions
    tile_of: TileRule
    study_images: StudyImages | None
    """The images of the study's target data; None if the networks belong to no study or data are missing."""

    @property
    def first(self) -> Model:
        """Return the first network; all have the same settings."""
        return next(iter(self.models.values()))

    @cached_property
    def scored_threshold(self) -> float:
        """Return the threshold of the scores."""
        return self.choice.threshold(self.first.record)

    @property
    def threshold(self) -> float:
        """Return the probability from which a pixel belongs to a class."""
        return self.scored_threshold if self.options.threshold is None else self.options.threshold

    @property
    def description(self) -> str:
        """Return the cell, the number of its networks and how they predict, as text."""
        networks = f"{len(self.models)} network{'s' if len(self.models) > 1 else ''}"
        further = [f"test-time augmentation {' and '.join(self.scored.all_tta)}"] if self.scored.all_tta else []
        further += ["post-processed"] if self.scored.rules else []
        cell = self.choice.description or self.choice.digests[0]
        return ", ".join([f"{cell}: {networks}, threshold {self.threshold:g}", *further])

    def read(self, image: InputImage) -> Decoded:
        """Decode an image or a volume, as in training. Raises `DataError`."""
        if image.fault:
            raise DataError(image.fault)
        first = self.first
        channels = [examine_file(file, "image", first.volumes, first.file_channels) for file in image.files]
        decoded = with_spacing(channels[0], image.file)
        if len(channels) > 1:
            if len({channel.pixels.shape for channel in channels}) > 1:
                message = f"{image.file}: its channels have different sizes; allowed: equal ones; restore them"
                raise DataError(message)
            if len(channels) != first.image.channels:
                raise DataError(
                    f"{image.file.name} has {len(channels)} files of channels; allowed: {first.image.channels}, as "
                    "image.channels is; use other images"
                )
            decoded = replace(decoded, pixels=np.stack([channel.pixels for channel in channels], axis=-1))
        check_channels(decoded.pixels[0] if decoded.geometry.slices else decoded.pixels, first.image, image.file.name)
        return decoded

    def select(self, file: Path | None) -> tuple[StudyImage | None, Selection]:
        """Return the image of the study with the content of a file, if it is one, and the networks that predict it."""
        image = self.study_images.find(file) if self.study_images is not None and file is not None else None
        return image, networks_for(image, list(self.models), ensemble=self.options.ensemble)

    def predictor(self, selection: Selection) -> Predictor:
        """Return the predictor of some of the networks."""
        tta = [self.scored.tta_of(digest) for digest in selection.digests]
        return Predictor([self.models[digest] for digest in selection.digests], tta)

    def rules(
        self, digests: Sequence[str], own_size: tuple[int, int], output_size: tuple[int, int]
    ) -> tuple[ClassRule, ...]:
        """Return the post-processing of some networks for the masks of an image.

        Args:
            digests: The networks.
            own_size: Height and width of the image.
            output_size: Height and width of its masks.
        """
        factor = self.scored.area_factor(own_size, output_size)
        rules = self.scored.combined(digests, self.first.outputs.names, self.options.threshold)
        return tuple(rule.scaled(factor) for rule in rules)


def open_networks(choice: Choice, store: Store, options: NetworkOptions, say: Callable[[str], None]) -> CellNetworks:
    """Load the networks of a cell, on a GPU if there is one.

    Args:
        choice: The stages.
        store: The storage.
        options: How they predict.
        say: Receives a line if the study's own images cannot be recognised.

    Raises:
        ConfigError: Their weights were not kept, or an option does not fit.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {digest: open_model(store, digest, device) for digest in choice.digests}
    first = models[choice.digests[0]]
    tile_of, scored = _tile_rule(options.tile, first), ScoredEvaluation.read(store, choice)
    return CellNetworks(
        choice=choice, models=models, scored=_used(scored, options), has_tta=bool(scored.all_tta), options=options,
        tile_of=tile_of, study_images=_study_images(choice, store, first, options, say),
    )  # fmt: skip


def is_side(text: str) -> bool:
    """Return whether a text is an allowed side of masks or tiles in pixels."""
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIDE))
    return is_number and MIN_SIDE <= int(text) <= MAX_SIDE


def _used(scored: ScoredEvaluation, options: NetworkOptions) -> ScoredEvaluation:
    """Return how the networks were scored, without what the options leave out."""
    scored = scored if options.postprocess else replace(scored, rules={})
    return scored if options.tta else replace(scored, tta={})


def _study_images(
    choice: Choice, store: Store, model: Model, options: NetworkOptions, say: Callable[[str], None]
) -> StudyImages | None:
    if choice.study is None:
        return None
    try:
        data = model.record["settings"]["data"]
        return StudyImages(choice, store, data, options.cache, postprocessed=options.postprocess)
    except (DataError, OSError) as error:
        say(f"the study's own images cannot be recognised and get ensemble masks: {error}")
        return None


def _tile_rule(text: str | None, model: Model) -> TileRule:
    """Return the rule that `--tile` names."""
    if text is None:
        return lambda _: None
    if text != AUTO:
        if not is_side(text):
            raise _tile_error(f"is {text}; allowed: auto, or {MIN_SIDE} to {MAX_SIDE} pixels; change it")
        return lambda _: int(text)
    side: int | None = model.record["data"].get("side")
    if side is None:
        message = f"is auto, and stage {model.digest[:8]} does not record the size of its training images"
        raise _tile_error(f"{message}; allowed: their longer side in pixels; give it")
    return lambda pixels: side if max(pixels.shape[:2]) > AUTO_TILE_FACTOR * side else None


def _tile_error(message: str) -> ConfigError:
    return ConfigError([Problem(path="--tile", message=message)], COMMAND)
