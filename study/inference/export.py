"""Exports trained networks for other programs: `study export`."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from datasets.cache.atomic_files import atomic_path
from datasets.decoding.decode import examine_file
from datasets.errors import DataError
from datasets.loading.patches import Window, cut
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.sources import DataSettings, open_source
from datasets.targets import fit_image, scaled_image
from models import standalone
from models.export import (
    MODULES,
    Ensemble,
    largest_difference,
    library_description,
    library_model,
    library_problem,
    write_onnx,
)
from study.errors import ConfigError, Problem
from study.inference.inputs import InputImage, find_images, group_channels
from study.inference.model_card import model_card
from study.inference.scored_evaluation import ScoredEvaluation
from study.inference.select import Choice
from study.store.atomic import write_json
from study.store.store import Store
from study.training.load_model import Model, open_model
from study.training.loader import to_images

COMMAND = "study export"
SCRIPT = "predict.py"
"""Name of the copy of `models.standalone` in an exported folder."""
MAX_CHECK_IMAGES = 4
"""Number of images that an ONNX file is checked on."""
MAX_DIFFERENCE = 1e-4
"""Maximum allowed difference of probabilities between ONNX and torch."""


def export(
    choice: Choice, store: Store, path: Path, *, images: Sequence[Path], ensemble: bool, cache: Path
) -> Iterator[str]:
    """Write one network, or the mean of all networks of a cell; yield lines for the user.

    Args:
        choice: The stages to export.
        store: The storage.
        path: Output; its suffix determines the format: .onnx, .safetensors or none (a folder).
        images: Images to check ONNX on; default: images of the training data.
        ensemble: Whether to write the mean of all networks.
        cache: Folder of the indexes of data sets.

    Raises:
        ConfigError: The path exists or cannot be written, or the format does not support the network.
    """
    write = _writer(path, ensemble=ensemble)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise _config_error(f"{path} exists; allowed: a new path; choose another with -o or remove it")
    digests = choice.digests
    if len(digests) > 1 and not ensemble:
        best = best_stage(store, digests)
        best_score = store.record(best)["best_score"]
        score = f"{best_score:.3f}" if best_score is not None else "none"
        yield f"of {len(digests)} networks {best[:8]} has the best validation score: {score}"
        digests = (best,)
    models = [open_model(store, digest) for digest in digests]
    check_images = _check_images(images, choice, models[0], cache) if path.suffix == ".onnx" else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield from write(models, choice, ScoredEvaluation.read(store, choice), path, check_images)
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); allowed: a writable path; choose another with -o"
        raise _config_error(message) from error


def best_stage(store: Store, digests: Sequence[str]) -> str:
    """Return the digest of the network with the best validation score."""
    return max(digests, key=lambda digest: store.record(digest)["best_score"] or 0.0)


CheckImages = tuple[Tensor, str] | None
"""Images (N, channels, H, W) in 0..1 and a description of them; None if the format is not checked."""
ExportWriter = Callable[[list[Model], Choice, ScoredEvaluation, Path, CheckImages], Iterator[str]]


def _writer(path: Path, *, ensemble: bool) -> ExportWriter:
    writers: dict[str, ExportWriter] = {".onnx": _onnx, ".safetensors": _safetensors, "": _folder}
    if path.suffix not in writers:
        raise _config_error(f"{path} ends in {path.suffix}; allowed: .onnx, .safetensors, or a folder; rename it")
    if ensemble and path.suffix != ".onnx":
        raise _config_error("--ensemble is for .onnx; allowed: one network elsewhere; leave it out or write .onnx")
    if path.suffix == ".onnx" and any(importlib.util.find_spec(name) is None for name in MODULES):
        message = f"{' and '.join(MODULES)} are needed for .onnx and not installed; allowed: .safetensors or a folder"
        raise _config_error(f"{message}; pip install {' '.join(MODULES)}")
    return writers[path.suffix]


def _onnx(
    models: list[Model], choice: Choice, scored: ScoredEvaluation, path: Path, check_images: CheckImages
) -> Iterator[str]:
    assert check_images is not None
    network = Ensemble([model.network for model in models], exclusive=models[0].outputs.exclusive).eval()
    image = models[0].image
    onnx_metadata = metadata(models, choice, scored) | {"stages": [model.digest for model in models]}
    pixels, description = check_images
    with atomic_path(path) as temporary:
        try:
            write_onnx(network, temporary, channels=image.channels, shape=image.shape, metadata=onnx_metadata)
        except ValueError as error:
            raise _config_error(str(error)) from error
        difference = largest_difference(network, temporary, pixels)
        if not difference <= MAX_DIFFERENCE:
            raise _config_error(
                f"ONNX is {difference:.1e} from torch on {description}; allowed: {MAX_DIFFERENCE:.0e}; use .safetensors"
            )
    yield f"checked on {description}: probabilities are at most {difference:.1e} from torch's"
    shape = f"(N, {image.channels}, {image.shape[0]}, {image.shape[1]})"
    yield f"wrote {path}: {len(models)} network{'s' * (len(models) > 1)}, images {shape} of 0 to 1"


def _safetensors(
    models: list[Model], choice: Choice, scored: ScoredEvaluation, path: Path, _: CheckImages
) -> Iterator[str]:
    (model,) = models
    header = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata(models, choice, scored).items()
    }
    save_file({name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}, path, metadata=header)
    yield f"wrote {path}: the weights, with their metadata in the header"


def _folder(models: list[Model], choice: Choice, scored: ScoredEvaluation, path: Path, _: CheckImages) -> Iterator[str]:
    (model,) = models
    problem = library_problem(model.blueprint)
    if problem:
        raise _config_error(problem)
    exported: Any = library_model(model.blueprint, model.network)
    exported.save_pretrained(path)
    settings = metadata(models, choice, scored)
    write_json(path / standalone.SETTINGS, settings)
    (path / SCRIPT).write_text(Path(standalone.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (path / "README.md").write_text(model_card(model, choice, settings), encoding="utf-8")
    yield (
        f"wrote {path}: {SCRIPT} there runs it, segmentation_models_pytorch.from_pretrained reads it; README.md is its "
        "model card"
    )


def metadata(models: Sequence[Model], choice: Choice, scored: ScoredEvaluation) -> dict[str, object]:
    """Return the metadata that a program needs to use the mean of networks; `scored` is how they were scored."""
    model, digests = models[0], [model.digest for model in models]
    rules = scored.combined(digests, model.outputs.names, None)
    image, outputs = model.image, model.outputs
    network = model.network
    return {
        "classes": list(outputs.names),
        "exclusive": outputs.exclusive,
        "channels": image.channels,
        "size": image.size,
        "fit": image.fit,
        "scale": image.scale,
        "spacing": image.spacing,
        "axis": model.volumes.axis,
        "window": model.volumes.window,
        "channel_files": list(model.channel_files),
        "file_channels": list(model.file_channels.selected) if model.file_channels is not None else [],
        "prepare": image.prepare.model_dump(mode="json"),
        "mean": [round(value, 6) for value in network.mean.flatten().tolist()],
        "std": [round(value, 6) for value in network.std.flatten().tolist()],
        "threshold": choice.threshold(model.record),
        "tta": list(scored.tta_of(model.digest)),
        "postprocess": {name: rule.record() for name, rule in zip(outputs.names, rules, strict=False)},
        "evaluated_size": scored.size,
        "architecture": model.record["architecture"],
        "backbone": model.record["backbone"],
        "digest": model.digest,
        "study": str(choice.spec.get("name", "")),
        "library": library_description(model.blueprint),
        "notice": "Not a medical device: not for diagnosis.",
    }


def _check_images(paths: Sequence[Path], choice: Choice, model: Model, cache: Path) -> tuple[Tensor, str]:
    """Return the given images, or the first images of the training data, with a description."""
    try:
        images, description = _given_images(paths, model) if paths else _training_images(choice, model, cache)
        inputs = np.stack([_network_input(pixels, model.image) for pixels in images])
    except DataError as error:
        raise _config_error(f"--images: {error}") from error
    except OSError as error:
        message = f"{error.filename} cannot be used ({error.strerror}); allowed: images to check on that you may read"
        raise _config_error(f"{message}; name some with --images") from error
    return to_images(torch.from_numpy(inputs), torch.device("cpu")), description


def _network_input(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Return an image fitted to the input of the network, or its first patch, (height, width, channels)."""
    if settings.fit == "patch":
        unscaled = settings.model_copy(update={"spacing": None})  # any patch serves to compare outputs
        return cut(scaled_image(pixels, unscaled), Window(0, 0), settings.shape, axis=0)
    return fit_image(pixels, settings)


def _given_images(paths: Sequence[Path], model: Model) -> tuple[list[Pixels], str]:
    images = find_images(paths, None, command=COMMAND)
    if model.channel_files:
        images = group_channels(images, model.channel_files)
    chosen = images[:MAX_CHECK_IMAGES]
    return [_given_image(image, model) for image in chosen], f"{len(chosen)} of the images named"


def _given_image(image: InputImage, model: Model) -> Pixels:
    """Return an image, or the slice in the middle of a volume, with all of its channels."""
    if image.fault:
        raise DataError(image.fault)
    planes = [_middle_slice(file, model) for file in image.files]
    if len({plane.shape for plane in planes}) > 1:
        raise DataError(f"{image.file}: its channels have different sizes; allowed: equal ones; restore them")
    return planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)


def _middle_slice(file: Path, model: Model) -> Pixels:
    """Return an image, or the slice in the middle of a volume."""
    decoded = examine_file(file, "image", model.volumes, model.file_channels)
    slices = decoded.geometry.slices
    return decoded.pixels[slices // 2] if slices else decoded.pixels


def _training_images(choice: Choice, model: Model, cache: Path) -> tuple[list[Pixels], str]:
    from pydantic import TypeAdapter

    name = model.record["settings"]["data"]
    if name not in choice.spec.get("data", {}):
        raise DataError(f"no study defines the data {name}; allowed: images to check on; name some")
    adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
    source = open_source(adapter.validate_python(choice.spec["data"][name]))
    index = source.index(cache)
    rows = [row for row, fault in enumerate(index.faults) if not fault][:MAX_CHECK_IMAGES]
    return [source.image(row) for row in rows], f"{len(rows)} images of {name}"


def _config_error(message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], COMMAND)
