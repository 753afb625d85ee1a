"""A trained network for other programs: `study export`."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from datasets.decoding.decode import read
from datasets.errors import DataError
from datasets.source import Pixels
from datasets.sources import DataSettings, open_source
from datasets.targets import fit_image
from models.export import MODULES, Answer, largest_difference, library_model, library_problem, write_onnx
from study.errors import ConfigError, Problem
from study.inference.inputs import pictures
from study.inference.model_card import card
from study.inference.select import Choice
from study.store.store import Store
from study.training.load_model import Model, open_model
from study.training.loader import to_images

COMMAND = "study export"
CHECKED = 4
"""Real images that ONNX is checked on."""
CLOSE = 1e-4
"""How far probabilities may be from torch's."""


def export(
    choice: Choice, store: Store, place: Path, *, images: Sequence[Path], ensemble: bool, cache: Path
) -> Iterator[str]:
    """Write one network, or the mean of a cell's, in the form that the place's suffix names; yield what was done.

    Raises `ConfigError`.
    """
    write = _writer(place, ensemble=ensemble)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise _refused(f"{place} exists; allowed: a new place; choose another with -o or remove it")
    models = [open_model(store, digest) for digest in choice.digests]
    if len(models) > 1 and not ensemble:
        best = max(models, key=lambda model: model.record["best_score"] or 0.0)
        score = f"{best.record['best_score']:.3f}" if best.record["best_score"] is not None else "none"
        yield f"of {len(models)} networks {best.digest[:8]} has the best validation score: {score}"
        models = [best]
    shown = _shown(images, choice, models[0], cache) if place.suffix == ".onnx" else None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        yield from write(models, choice, place, shown)
    except OSError as error:
        message = (
            f"{place} cannot be written ({error.strerror}); allowed: a place you may write; choose another with -o"
        )
        raise _refused(message) from error


Shown = tuple[Tensor, str] | None
"""Images (N, channels, S, S) in 0..1 and whose they are."""
Writer = Callable[[list[Model], Choice, Path, Shown], Iterator[str]]


def _writer(place: Path, *, ensemble: bool) -> Writer:
    writers: dict[str, Writer] = {".onnx": _onnx, ".safetensors": _safetensors, "": _folder}
    if place.suffix not in writers:
        raise _refused(f"{place} ends in {place.suffix}; allowed: .onnx, .safetensors, or a folder; rename it")
    if ensemble and place.suffix != ".onnx":
        raise _refused("--ensemble is for .onnx; allowed: one network elsewhere; leave it out or write .onnx")
    if place.suffix == ".onnx" and any(importlib.util.find_spec(name) is None for name in MODULES):
        message = f"{' and '.join(MODULES)} are needed for .onnx and not installed; allowed: .safetensors or a folder"
        raise _refused(f'{message}; pip install "segmentation-study[export]"')
    return writers[place.suffix]


def _onnx(models: list[Model], choice: Choice, place: Path, shown: Shown) -> Iterator[str]:
    assert shown is not None
    answer = Answer([model.network for model in models], exclusive=models[0].outputs.exclusive).eval()
    aside = place.with_name(f".{place.name}")
    image = models[0].image
    about = metadata(models[0], choice) | {"stages": [model.digest for model in models]}
    try:
        write_onnx(answer, aside, channels=image.channels, size=image.size, metadata=about)
    except ValueError as error:
        raise _refused(str(error)) from error
    pixels, of = shown
    difference = largest_difference(answer, aside, pixels)
    if not difference <= CLOSE:
        aside.unlink()
        raise _refused(f"ONNX is {difference:.1e} from torch on {of}; allowed: {CLOSE:.0e}; use .safetensors")
    aside.replace(place)
    yield f"checked on {of}: probabilities are at most {difference:.1e} from torch's"
    shape = f"(N, {image.channels}, {image.size}, {image.size})"
    yield f"wrote {place}: {len(models)} network{'s' * (len(models) > 1)}, images {shape} of 0 to 1"


def _safetensors(models: list[Model], choice: Choice, place: Path, _: Shown) -> Iterator[str]:
    (model,) = models
    about = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata(model, choice).items()
    }
    save_file({name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}, place, metadata=about)
    yield f"wrote {place}: the weights, with what they are for in its header"


def _folder(models: list[Model], choice: Choice, place: Path, _: Shown) -> Iterator[str]:
    (model,) = models
    problem = library_problem(model.blueprint)
    if problem:
        raise _refused(problem)
    made: Any = library_model(model.blueprint, model.network)
    made.save_pretrained(place)
    (place / "README.md").write_text(card(model, choice, metadata(model, choice)), encoding="utf-8")
    yield f"wrote {place}: segmentation_models_pytorch.from_pretrained reads it; README.md is its model card"


def metadata(model: Model, choice: Choice) -> dict[str, object]:
    """Return what a program needs to use a network, by name."""
    image, outputs = model.image, model.outputs
    network = model.network
    return {
        "classes": list(outputs.names),
        "exclusive": outputs.exclusive,
        "channels": image.channels,
        "size": image.size,
        "fit": image.fit,
        "prepare": image.prepare.model_dump(mode="json"),
        "mean": [round(value, 6) for value in network.mean.flatten().tolist()],
        "std": [round(value, 6) for value in network.std.flatten().tolist()],
        "threshold": choice.threshold(model.record),
        "architecture": model.record["architecture"],
        "backbone": model.record["backbone"],
        "digest": model.digest,
        "study": str(choice.spec.get("name", "")),
        "notice": "Not a medical device: not for diagnosis.",
    }


def _shown(places: Sequence[Path], choice: Choice, model: Model, cache: Path) -> tuple[Tensor, str]:
    """Return real images to check on: those that are named, else the first ones of the data it learned from."""
    try:
        found, of = _named(places) if places else _own(choice, model, cache)
    except DataError as error:
        raise _refused(f"--images: {error}") from error
    except OSError as error:
        message = f"{error.filename} cannot be used ({error.strerror}); allowed: images to check on that you may read"
        raise _refused(f"{message}; name some with --images") from error
    squares = np.stack([fit_image(pixels, model.image) for pixels in found])
    return to_images(torch.from_numpy(squares), torch.device("cpu")), of


def _named(places: Sequence[Path]) -> tuple[list[Pixels], str]:
    files = [picture.file for picture in pictures(places, Path())][:CHECKED]
    return [read(file, "image") for file in files], f"{len(files)} of the images named"


def _own(choice: Choice, model: Model, cache: Path) -> tuple[list[Pixels], str]:
    from pydantic import TypeAdapter

    name = model.record["settings"]["data"]
    if name not in choice.spec.get("data", {}):
        raise DataError(f"no study tells where data {name} are; allowed: images to check on; name some")
    adapter: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)
    source = open_source(adapter.validate_python(choice.spec["data"][name]))
    index = source.index(cache)
    rows = [row for row, fault in enumerate(index.faults) if not fault][:CHECKED]
    return [source.image(row) for row in rows], f"{len(rows)} images of {name}"


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], COMMAND)
