"""The model card of an exported network (after Mitchell et al. 2019), in Markdown."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.settings import ImageSettings
from study.analysis.tables import read_comparisons
from study.inference.select import Choice
from study.training.load_model import Model

METRICS = ("dice", "mean_iou", "precision", "recall")
MACRO = "macro"

_CARD = """---
library_name: segmentation-models-pytorch
pipeline_tag: image-segmentation
tags: [segmentation, segmentation-models-pytorch]
---
# {title}

{architecture} with backbone {backbone}, {parameters:,} parameters; {kind} classes: {classes}.

## Intended use

Research on segmentation of images like the training images. **Not a medical device and not for diagnosis**: its
safety and clinical benefit have not been evaluated.

## Use

`pip install {packages}` brings all that is needed. In this folder:

```python
{reading}
prediction = model.predict(image)
print(prediction.channels, prediction.probabilities.shape, prediction.masks.mean(axis=(1, 2)))
```

`predict` repeats what the study does before and after the network, but for post-processing. `model.network` is the
network of segmentation-models-pytorch: from images with values 0 to 1, minus the mean {mean}, divided by the
standard deviation {std}, to logits; `logits.{activation}` are the probabilities.

{images} {channels} channel{plural}{prepare}. {decision}

## Data

{data}

## Metrics

{metrics}

## Limits

- Performance may be much worse on images of other scanners, hospitals, patients or diseases.
- Probabilities are not calibrated.
- {validated}
- Performance by subgroup, such as age or sex, has not been evaluated.

## Origin

Stage `{digest}`{study}, seed {seed}, {updates} updates, best epoch {epoch}. Data fingerprint `{fingerprint}`.
Versions: {libraries}.
"""


_READ_FILE = """from predict import load, read  # predict.py of this folder

model = load(".")
image = read("image.png")  # uint8 (height, width) or (height, width, 3)"""
_READ_ARRAY = """import numpy as np

from predict import load  # predict.py of this folder

model = load(".")
image = np.load("image.npy")  # uint8 (height, width, {channels}) of one image or slice, scaled as described below"""


def model_card(model: Model, choice: Choice, metadata: Mapping[str, Any]) -> str:
    """Return the Markdown text: use, data, metrics with intervals, limits, origin."""
    record, outputs = model.record, model.outputs
    name = choice.spec.get("name")
    return _CARD.format(
        title=f"{name}: {record['architecture']}" if name else str(record["architecture"]),
        architecture=record["architecture"],
        backbone=record["backbone"],
        parameters=record["parameters"],
        kind="exclusive" if outputs.exclusive else "overlapping",
        classes=", ".join(outputs.names),
        activation="softmax(dim=1)" if outputs.exclusive else "sigmoid()",
        packages="segmentation-models-pytorch" + (" opencv-python-headless" if _needs_opencv(model.image) else ""),
        reading=_READ_FILE if _reads_files(model) else _READ_ARRAY.format(channels=model.image.channels),
        decision=" ".join([_decision(model, metadata["threshold"]), *_evaluation_texts(metadata)]),
        prepare=f", after these changes: {json.dumps(metadata['prepare'])}" if _is_preprocessed(model) else "",
        images=f"{_volumes_text(record['data'].get('volumes'))}{_images_text(model.image)}",
        plural="s" if model.image.channels > 1 else "",
        data=_data(model, choice),
        metrics=_metrics(choice, outputs.names),
        validated=_validation_text(record["data"]["validation"]),
        digest=model.digest,
        study=f" of study {name} ({choice.description})" if name else "",
        seed=record["seed"],
        updates=record["updates"],
        epoch=record["best_epoch"],
        fingerprint=record["data"]["fingerprint"],
        libraries=", ".join(f"{library} {version}" for library, version in record["libraries"].items()),
        **{key: metadata[key] for key in ("mean", "std", "channels", "fit")},
        height=model.image.shape[0],
        width=model.image.shape[1],
    )


def _needs_opencv(image: ImageSettings) -> bool:
    """Return whether `predict.py` needs OpenCV to prepare images."""
    prepare = image.prepare
    return prepare.equalise is not None or (image.channels == 3 and prepare != type(prepare)())


def _reads_files(model: Model) -> bool:
    """Return whether an image is one ordinary file."""
    further = model.record["data"].get("volumes") is not None or model.channel_files or model.file_channels is not None
    return model.image.channels in (1, 3) and not further


def _images_text(image: ImageSettings) -> str:
    """Return how an image becomes inputs of the network, to be followed by the number of channels."""
    height, width = image.shape
    size = f"{width} x {height} pixels"
    if image.fit != "patch":
        return f"Images are resized to {size} ({image.fit}) with"
    scaled = f", after both sides are multiplied by {image.scale:g}," if image.scale != 1 else ""
    if image.spacing is not None:
        scaled = f", after it is resized to pixels of {image.spacing:g} mm,"
    return f"Inputs are windows of {size}, cut out of an image in its own resolution{scaled} that overlap by half, with"


def _volumes_text(volumes: Mapping[str, Any] | None) -> str:
    """Return how volumes become images, "" if there are none in the training data."""
    if volumes is None:
        return ""
    axis, window = volumes["axis"], volumes["window"]
    along = "of the largest spacing" if axis is None else f"{axis} (0 left to right, 1 front to back, 2 feet to head)"
    scaled = "between the percentiles 0.5 and 99.5" if window is None else f"from {window[0]:g} to {window[1]:g}"
    return f"Images are slices of volumes, perpendicular to the axis {along}; intensities {scaled} become 0 to 255. "


def _is_preprocessed(model: Model) -> bool:
    return model.image.prepare != type(model.image.prepare)()


def _decision(model: Model, threshold: float) -> str:
    outputs = model.outputs
    if not outputs.exclusive:
        return f"A pixel belongs to a class if its probability is at least {threshold:g}."
    if len(outputs.names) == 1:
        return (
            f"Channel 0 is the background; a pixel is {outputs.names[0]} if its probability is at least {threshold:g}."
        )
    return "Channel 0 is the background; each pixel gets the class with the highest probability."


def _evaluation_texts(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what else the study did with the probabilities."""
    if metadata["tta"]:
        yield f"The study scored means over views of each image ({', '.join(metadata['tta'])})."
    if metadata["postprocess"]:
        yield "Post-processing, which the metrics below do not include, is in the metadata of the network."


def _data(model: Model, choice: Choice) -> str:
    counts, name = model.record["data"], model.record["settings"]["data"]
    source = choice.spec.get("data", {}).get(name, {}).get("source")
    source_text = f" (source {source})" if source else ""
    start = model.record["initial_weights"]
    start_text = f"It started from {start} weights." if start else f"It started from stage `{model.record['parent']}`."
    return (
        f"Data set {name}{source_text}: {counts['train']} images with labels for training, {counts['validation']} for "
        f"validation. {start_text}{_pseudo_labels(model)}"
    )


def _pseudo_labels(model: Model) -> str:
    """Return the images whose labels other networks predicted, as text; empty for other models."""
    labels = model.record.get("pseudo_labels")
    if labels is None:
        return ""
    networks = len(labels["teachers"])
    predicted = f"{networks} networks" if networks > 1 else f"stage `{labels['teachers'][0]}`"
    images = model.record["data"]["unlabelled"]
    return f" It also learned from {images} images without masks, with pseudo-labels predicted by {predicted}."


def _validation_text(images: int) -> str:
    if not images:
        return "There were no validation images: the weights are those of the last epoch."
    return (
        f"The epoch, and this network among those of its cell, were chosen by the score on {images} validation images."
    )


def _metrics(choice: Choice, classes: Sequence[str]) -> str:
    """Return a table of the cell's scores on test images."""
    if choice.study is None:
        return "None: no study of the storage scored it."
    rows = read_comparisons(choice.study, {"split": "test", "aggregation": "dataset"}).to_pylist()
    scores = {
        (row["class"], row["metric"]): row
        for row in rows
        if all(row.get(key) == value for key, value in choice.cell.items())
    }
    metrics = [metric for metric in METRICS if any(key[1] == metric for key in scores)]
    if not metrics:
        return "None: its study has no scores yet."
    lines = [f"| class | {' | '.join(metrics)} |", f"| --- |{' --- |' * len(metrics)}"]
    for name in (MACRO, *classes):
        lines.append(f"| {name} | {' | '.join(_interval(scores.get((name, metric))) for metric in metrics)} |")
    replicates = max(row["n"] for row in scores.values())
    note = (
        f"On test images of {replicates} networks of the same cell (folds and seeds), of which this is one: mean and "
        "95 % interval of the expected score of a new training, counted over the pixels of all test images. "
        "With few folds intervals are wide and may leave 0 to 1."
    )
    return "\n".join([*lines, "", note])


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "undefined"
    if row["ci_low"] is None or row["ci_high"] is None:
        return f"{row['mean']:.3f} (no interval: too few folds)"
    return f"{row['mean']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
