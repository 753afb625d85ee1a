"""Predicts masks of images with trained networks: `study predict`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.decoding.decode import Decoded, is_large_file
from datasets.decoding.mask_volumes import mask_suffix
from datasets.errors import DataError
from datasets.large import is_large
from datasets.resampling import resized
from datasets.source import Pixels
from study.errors import ConfigError, Problem
from study.inference import MAX_SIDE, MIN_SIDE
from study.inference.inputs import COMMAND, InputImage, check_new, check_outputs, find_images, group_channels
from study.inference.large_outputs import write_large
from study.inference.networks import CellNetworks, NetworkOptions, is_side, open_networks
from study.inference.out_of_fold import Masks, OutOfFoldSummary
from study.inference.outputs import DESCRIPTION, PNG, TIFF, Precision, PredictionWriter, mask_endings
from study.inference.progress import PredictionProgress
from study.inference.scored_evaluation import ScoredEvaluation
from study.inference.select import Choice
from study.store.store import Store
from study.training.prediction.bands import Band, whole


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(NetworkOptions):
    """Options of `study predict`."""

    output: Path
    size: tuple[int, int] | None = None
    """Height and width of the masks; default: those of the image."""
    overlay: bool = False
    probabilities: Precision | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width that `--size` names. Raises `ConfigError`."""
    sides = [side.strip() for side in text.strip().removeprefix("[").removesuffix("]").replace("x", ",").split(",")]
    if len(sides) > 2 or not all(map(is_side, sides)):
        raise _config_error(
            "--size", f"is {text}; allowed: a side or HEIGHTxWIDTH, {MIN_SIDE} to {MAX_SIDE} pixels each; change it"
        )
    return int(sides[0]), int(sides[-1])


def predict(
    choice: Choice, store: Store, paths: Sequence[Path], options: PredictionOptions, say: Callable[[str], None]
) -> bool:
    """Write the predictions of all images; return whether all could be read. Raises `ConfigError` if none could.

    Images that cannot be read are reported on stderr and skipped.
    """
    networks = open_networks(choice, store, options, say)
    first = networks.first
    images = find_images(paths, options.output)
    if first.channel_files:
        images = group_channels(images, first.channel_files)
    writer = PredictionWriter(
        outputs=first.outputs,
        threshold=networks.threshold,
        overlay=options.overlay,
        probabilities=options.probabilities,
    )

    def suffixes(image: InputImage) -> list[str]:
        large = _is_large(image) if options.size is None else is_large(*options.size)
        return writer.suffixes(*mask_endings(image.file, large=large))

    check_outputs(images, suffixes)
    if not (options.output / DESCRIPTION).exists():
        check_new(images, suffixes)
    record: dict[str, object] = {
        "stages": list(networks.models),
        "cell": dict(choice.cell),
        "size": _recorded(options.size),
        "tile": options.tile,
    }
    record |= _evaluation_record(networks.scored)
    say(networks.description)
    run = _Run(networks=networks, writer=writer, options=options, record=record)
    unreadable = list(run.predict_all(images))
    if len(unreadable) == len(images):
        message = (
            f"none of {len(images)} images can be read; allowed: PNG, JPEG, TIFF, NIfTI and DICOM files; name others"
        )
        raise ConfigError([Problem(path="", message=message)], COMMAND)
    writer.write_description(options.output, record | run.summary.record(), run.endings)
    for line in (*run.summary.lines(), *(_cautions(networks, options) if run.summary.dice else ())):
        say(line)
    written = len(images) - len(unreadable)
    say(f"wrote masks of {written} images to {options.output}; {DESCRIPTION} there describes them")
    if unreadable:
        say(f"{len(unreadable)} of {len(images)} images could not be read")
    return not unreadable


def _cautions(networks: CellNetworks, options: PredictionOptions) -> Iterator[str]:
    """Yield cautions about the Dice of the study's own images."""
    threshold = networks.scored_threshold
    if options.threshold is not None and options.threshold != threshold:
        yield f"Dice as scored is at threshold {threshold:g}, at own size at {options.threshold:g}"
    if not options.tta and networks.has_tta:
        yield "Dice as scored is with test-time augmentation, at own size without"
    if networks.choice.spec.get("leaks") == "report":
        yield "the study reports leaks and keeps them: pretraining may have read these images, and Dice may be too high"


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One run of `study predict`."""

    networks: CellNetworks
    writer: PredictionWriter
    options: PredictionOptions
    record: Mapping[str, object]
    """How the masks are predicted, for their description."""
    summary: OutOfFoldSummary = field(default_factory=OutOfFoldSummary)
    endings: set[str] = field(default_factory=set)
    """Endings of the masks that were written."""

    def predict_all(self, images: Sequence[InputImage]) -> Iterator[InputImage]:
        """Write the predictions of every image; yield those that cannot be read."""
        with PredictionProgress(len(images)) as progress:
            yield from self._predict_each(images, progress)

    def _predict_each(self, images: Sequence[InputImage], progress: PredictionProgress) -> Iterator[InputImage]:
        for image in images:
            try:
                decoded = self.networks.read(image)
                if decoded.geometry.slices and self.options.size is not None:
                    message = (
                        f"{image.file} is a volume, whose masks have its own size; allowed: volumes without --size"
                    )
                    raise DataError(f"{message}; remove it")
                self._predict(image, decoded)
            except DataError as error:
                progress.done(f"left out: {error}")
                yield image
                continue
            progress.done()

    def _predict(self, image: InputImage, decoded: Decoded) -> None:
        """Write the predictions of an image or a volume; measure its masks if it is one of the study's own.

        Raises `DataError` if its spacing has to be known and is not.
        """
        study_image, selection = self.networks.select(image.file)
        predictor = self.networks.predictor(selection)
        pixels, spacing, size = decoded.pixels, decoded.geometry.spacing, self.options.size
        is_volume = decoded.geometry.slices > 0
        first = pixels[0] if is_volume else pixels
        tile, own_size = self.networks.tile_of(first), (first.shape[0], first.shape[1])
        writer = self._writer(selection.digests, own_size, size or own_size)
        if is_volume:
            parts = (predictor.probabilities(part, tile=tile, spacing=spacing) for part in pixels)
            masks = self._written(image, lambda: writer.write_volume(image, decoded, parts))
            self.endings.add(mask_suffix(image.file))
        else:
            bands = predictor.bands(pixels, size=size, tile=tile, spacing=spacing)
            masks = self._written(image, lambda: self._write(writer, image, pixels, bands))
        study_images = self.networks.study_images
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
        return replace(self.writer, rules=self.networks.rules(digests, own_size, output_size))

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


def _config_error(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(path=path, message=message)], COMMAND)
