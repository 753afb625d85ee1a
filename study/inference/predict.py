"""Predicts masks of images with trained networks: `study predict`."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from datasets.decoding.decode import Decoded, examine_file, is_large_file
from datasets.decoding.mask_volumes import mask_suffix
from datasets.decoding.spacing_json import with_spacing
from datasets.errors import DataError
from datasets.large import is_large
from datasets.resampling import resized
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.targets import check_channels
from results.text import printable
from study.errors import ConfigError, Problem
from study.inference import MAX_SIDE, MIN_SIDE
from study.inference.inputs import COMMAND, InputImage, check_new, check_outputs, find_images, group_channels
from study.inference.large_outputs import write_large
from study.inference.out_of_fold import Masks, OutOfFoldSummary, StudyImages, networks_for
from study.inference.outputs import DESCRIPTION, PNG, TIFF, Precision, PredictionWriter, mask_endings
from study.inference.predictor import Predictor
from study.inference.scored_evaluation import ScoredEvaluation
from study.inference.select import Choice
from study.store.store import Store
from study.training.load_model import Model, open_model
from study.training.prediction.bands import Band, whole

LINE_SECONDS = 5.0
AUTO_TILE_FACTOR = 2
"""`--tile auto` cuts images whose longer side exceeds that of the training images by this factor."""
AUTO = "auto"
TileRule = Callable[[Pixels], int | None]
"""Returns the side of the tiles of an image, None for an image that is predicted as a whole."""


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Options of `study predict`."""

    output: Path
    size: tuple[int, int] | None = None
    """Height and width of the masks; default: those of the image."""
    tile: str | None = None
    threshold: float | None = None
    postprocess: bool = True
    """Whether masks are post-processed as they were for the scores."""
    tta: bool = True
    """Whether the test-time augmentation of the scores is used."""
    ensemble: bool = False
    """Whether all networks predict the study's own images too."""
    overlay: bool = False
    probabilities: Precision | None = None
    cache: Path
    """Folder of the indexes of data sets."""


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width that `--size` names. Raises `ConfigError`."""
    sides = [side.strip() for side in text.strip().removeprefix("[").removesuffix("]").replace("x", ",").split(",")]
    if len(sides) > 2 or not all(map(_is_side, sides)):
        raise _config_error(
            "--size", f"is {text}; allowed: a side or HEIGHTxWIDTH, {MIN_SIDE} to {MAX_SIDE} pixels each; change it"
        )
    return int(sides[0]), int(sides[-1])


def _is_side(text: str) -> bool:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIDE))
    return is_number and MIN_SIDE <= int(text) <= MAX_SIDE


def predict(
    choice: Choice, store: Store, paths: Sequence[Path], options: PredictionOptions, say: Callable[[str], None]
) -> bool:
    """Write the predictions of all images; return whether all could be read. Raises `ConfigError` if none could.

    Images that cannot be read are reported on stderr and skipped.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = {digest: open_model(store, digest, device) for digest in choice.digests}
    first = models[choice.digests[0]]
    images = find_images(paths, options.output)
    if first.channel_files:
        images = group_channels(images, first.channel_files)
    writer = PredictionWriter(
        outputs=first.outputs,
        threshold=choice.threshold(first.record) if options.threshold is None else options.threshold,
        overlay=options.overlay,
        probabilities=options.probabilities,
    )

    def suffixes(image: InputImage) -> list[str]:
        large = _is_large(image) if options.size is None else is_large(*options.size)
        return writer.suffixes(*mask_endings(image.file, large=large))

    check_outputs(images, suffixes)
    if not (options.output / DESCRIPTION).exists():
        check_new(images, suffixes)
    tile_of, scored = _tile_rule(options.tile, first), ScoredEvaluation.read(store, choice)
    used = _used(scored, options)
    record: dict[str, object] = {
        "stages": list(models),
        "cell": dict(choice.cell),
        "size": _recorded(options.size),
        "tile": options.tile,
    }
    record |= _evaluation_record(used)
    networks = f"{len(models)} network{'s' if len(models) > 1 else ''}"
    further = [f"test-time augmentation {' and '.join(used.all_tta)}"] if used.all_tta else []
    further += ["post-processed"] if used.rules else []
    say(", ".join([f"{choice.description or choice.digests[0]}: {networks}, threshold {writer.threshold:g}", *further]))
    run = _Run(
        image=first.image, models=models, writer=writer, options=options, tile_of=tile_of,
        study_images=_study_images(choice, store, first, options, say), record=record, scored=used,
    )  # fmt: skip
    unreadable = list(run.predict_all(images))
    if len(unreadable) == len(images):
        message = (
            f"none of {len(images)} images can be read; allowed: PNG, JPEG, TIFF, NIfTI and DICOM files; name others"
        )
        raise ConfigError([Problem(path="", message=message)], COMMAND)
    writer.write_description(options.output, record | run.summary.record(), run.endings)
    for line in (*run.summary.lines(), *(_cautions(choice, scored, first, options) if run.summary.dice else ())):
        say(line)
    written = len(images) - len(unreadable)
    say(f"wrote masks of {written} images to {options.output}; {DESCRIPTION} there describes them")
    if unreadable:
        say(f"{len(unreadable)} of {len(images)} images could not be read")
    return not unreadable


def _cautions(choice: Choice, scored: ScoredEvaluation, model: Model, options: PredictionOptions) -> Iterator[str]:
    """Yield cautions about the Dice of the study's own images."""
    threshold = choice.threshold(model.record)
    if options.threshold is not None and options.threshold != threshold:
        yield f"Dice as scored is at threshold {threshold:g}, at own size at {options.threshold:g}"
    if not options.tta and scored.all_tta:
        yield "Dice as scored is with test-time augmentation, at own size without"
    if choice.spec.get("leaks") == "report":
        yield "the study reports leaks and keeps them: pretraining may have read these images, and Dice may be too high"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of `study predict`."""

    image: ImageSettings
    models: Mapping[str, Model]
    """By digest."""
    writer: PredictionWriter
    options: PredictionOptions
    tile_of: TileRule
    study_images: StudyImages | None
    record: Mapping[str, object]
    """How the masks are predicted, for their description."""
    scored: ScoredEvaluation
    summary: OutOfFoldSummary = field(default_factory=OutOfFoldSummary)
    endings: set[str] = field(default_factory=set)
    """Endings of the masks that were written."""

    def predict_all(self, images: Sequence[InputImage]) -> Iterator[InputImage]:
        """Write the predictions of every image; yield those that cannot be read."""
        report = _progress(len(images))
        for done, image in enumerate(images, start=1):
            try:
                self._predict(image, self._read(image))
            except DataError as error:
                report(done, f"left out: {error}")
                yield image
                continue
            report(done, "")

    def _read(self, image: InputImage) -> Decoded:
        """Decode an image or a volume, as in training. Raises `DataError`."""
        if image.fault:
            raise DataError(image.fault)
        first = next(iter(self.models.values()))
        channels = [examine_file(file, "image", first.volumes, first.file_channels) for file in image.files]
        decoded = with_spacing(channels[0], image.file)
        if len(channels) > 1:
            if len({channel.pixels.shape for channel in channels}) > 1:
                message = f"{image.file}: its channels have different sizes; allowed: equal ones; restore them"
                raise DataError(message)
            if len(channels) != self.image.channels:
                raise DataError(
                    f"{image.file.name} has {len(channels)} files of channels; allowed: {self.image.channels}, as "
                    "image.channels is; use other images"
                )
            decoded = replace(decoded, pixels=np.stack([channel.pixels for channel in channels], axis=-1))
        if decoded.geometry.slices and self.options.size is not None:
            raise DataError(
                f"{image.file} is a volume, whose masks have its own size; allowed: volumes without --size; remove it"
            )
        check_channels(decoded.pixels[0] if decoded.geometry.slices else decoded.pixels, self.image, image.file.name)
        return decoded

    def _predict(self, image: InputImage, decoded: Decoded) -> None:
        """Write the predictions of an image or a volume; measure its masks if it is one of the study's own.

        Raises `DataError` if its spacing has to be known and is not.
        """
        study_images = self.study_images
        study_image = study_images.find(image.file) if study_images else None
        selection = networks_for(study_image, list(self.models), ensemble=self.options.ensemble)
        tta = [self.scored.tta_of(digest) for digest in selection.digests]
        predictor = Predictor([self.models[digest] for digest in selection.digests], tta)
        pixels, spacing, size = decoded.pixels, decoded.geometry.spacing, self.options.size
        is_volume = decoded.geometry.slices > 0
        first = pixels[0] if is_volume else pixels
        tile, own_size = self.tile_of(first), (first.shape[0], first.shape[1])
        writer = self._writer(selection.digests, own_size, size or own_size)
        if is_volume:
            parts = (predictor.probabilities(part, tile=tile, spacing=spacing) for part in pixels)
            masks = self._written(image, lambda: writer.write_volume(image, decoded, parts))
            self.endings.add(mask_suffix(image.file))
        else:
            bands = predictor.bands(pixels, size=size, tile=tile, spacing=spacing)
            masks = self._written(image, lambda: self._write(writer, image, pixels, bands))
        if study_images is None or study_image is None:
            return
        dice = None
        if selection.no_dice is None:
            if decoded.geometry.frame_order:  # the slices of the data set are in the order of their positions
                masks = masks[:, list(decoded.geometry.frame_order)]
            if size is not None:  # the written masks do not have the size of the true ones
                bands = predictor.bands(pixels, tile=tile, spacing=spacing)
                writer = self._writer(selection.digests, own_size, own_size)
                masks = writer.masks(bands, own_size)
            dice = study_images.dice(study_image, selection, masks, self.writer.outputs)
        self.summary.add(study_image, selection, dice)

    def _writer(
        self, digests: Sequence[str], own_size: tuple[int, int], output_size: tuple[int, int]
    ) -> PredictionWriter:
        """Return the writer with the post-processing of some networks for masks of a size."""
        factor = self.scored.area_factor(own_size, output_size)
        rules = self.scored.combined(digests, self.writer.outputs.names, self.options.threshold)
        return replace(self.writer, rules=tuple(rule.scaled(factor) for rule in rules))

    def _write(self, writer: PredictionWriter, image: InputImage, pixels: Pixels, bands: Iterator[Band]) -> Masks:
        pixels = _resized(pixels, self.options.size)
        height, width = pixels.shape[:2]
        self.endings.add(TIFF if is_large(height, width) else PNG)
        if is_large(height, width):
            return write_large(writer, image, pixels, bands, (height, width))
        return writer.write(image, pixels, whole(bands))

    def _written(self, image: InputImage, write: Callable[[], Masks]) -> Masks:
        """Return the masks that a function writes. Raises `ConfigError` if it cannot.

        The first ones are written after their description, which marks the folder of an interrupted run.
        """
        try:
            if not self.endings:
                self.writer.write_description(self.options.output, self.record, ())
            return write()
        except OSError as error:
            message = f"{image.output} cannot be written ({error.strerror}); allowed: a writable folder with free space"
            raise _config_error("--output", f"{message}; choose another") from error


def _evaluation_record(scored: ScoredEvaluation) -> dict[str, object]:
    """Return test-time augmentation and post-processing as `predictions.json` holds them."""
    rules = {
        digest: {name: rule.record() for name, rule in by_class.items()} for digest, by_class in scored.rules.items()
    }
    record: dict[str, object] = {"tta": scored.all_tta}
    return record | ({"postprocess": {"evaluated_size": scored.size, "rules": rules}} if rules else {})


def _used(scored: ScoredEvaluation, options: PredictionOptions) -> ScoredEvaluation:
    """Return how the networks were scored, without what the options leave out."""
    scored = scored if options.postprocess else replace(scored, rules={})
    return scored if options.tta else replace(scored, tta={})


def _study_images(
    choice: Choice, store: Store, model: Model, options: PredictionOptions, say: Callable[[str], None]
) -> StudyImages | None:
    """Return the images of the study's target data; None if the networks belong to no study or data are missing."""
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
        if not _is_side(text):
            raise _config_error("--tile", f"is {text}; allowed: auto, or {MIN_SIDE} to {MAX_SIDE} pixels; change it")
        return lambda _: int(text)
    side: int | None = model.record["data"].get("side")
    if side is None:
        message = f"is auto, and stage {model.digest[:8]} does not record the size of its training images"
        raise _config_error("--tile", f"{message}; allowed: their longer side in pixels; give it")
    return lambda pixels: side if max(pixels.shape[:2]) > AUTO_TILE_FACTOR * side else None


def _is_large(image: InputImage) -> bool:
    try:
        return is_large_file(image.file)
    except OSError:  # reported when the image is read
        return False


def _resized(pixels: Pixels, size: tuple[int, int] | None) -> Pixels:
    """Return the image at a size, or as it is."""
    return pixels if size is None else resized(pixels, *size, shrinks=True)


def _recorded(size: tuple[int, int] | None) -> int | list[int] | None:
    """Return a size as in study files: the side of a square, or height and width."""
    return size[0] if size is not None and size[0] == size[1] else size and list(size)


def _progress(total: int) -> Callable[[int, str], None]:
    """Return a reporter of the number of images done and of a problem, if any, on stderr.

    A terminal shows one line that is rewritten, other outputs get a line every few seconds.
    """
    last, terminal = time.monotonic(), sys.stderr.isatty()

    def report(done: int, problem: str) -> None:
        nonlocal last
        if problem:
            sys.stderr.write(("\r\x1b[K" if terminal else "") + printable(problem) + "\n")
        if terminal:
            sys.stderr.write(f"\rpredicting: {done:,} of {total:,} images" + ("\n" if done == total else ""))
            sys.stderr.flush()
        elif time.monotonic() - last > LINE_SECONDS:
            last = time.monotonic()
            sys.stderr.write(f"predicting: {done:,} of {total:,} images\n")

    return report


def _config_error(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(path=path, message=message)], COMMAND)
