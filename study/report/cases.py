"""Best, median and worst test images of the best cell, predicted from its stored weights."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from results.figures import OutlinedCase
from results.figures.cases import MaskArray
from results.metrics.background import BACKGROUND
from study.planning.graph import Plan
from study.report.facts import Chain, Facts
from study.report.pixel_figures import scores_file

if TYPE_CHECKING:
    from study.training.scoring.batches import EvaluatedBatch

MAX_SIDE: Final = 1500
"""Longest side at which images are drawn; others are reduced by a whole number."""


@dataclass(frozen=True, kw_only=True)
class ScoredImage:
    """A test image or volume and the Dice of a replicate on it, averaged over the classes in the true mask."""

    chain: Chain
    name: str
    """Id of the image or name of the volume."""
    image: str
    """Id of the image that is drawn: of a volume, the slice with the largest true masks."""
    dice: float


def select_extremes(facts: Facts, chains: Sequence[Chain]) -> list[tuple[str, ScoredImage]]:
    """Return the worst, the median and the best test image over the folds of one seed, or fewer if there are fewer."""
    images = sorted(
        (image for chain in chains if chain.seed == chains[0].seed for image in _test_images(facts, chain)),
        key=lambda image: (image.dice, image.name),
    )
    ranks = {"worst": 0, "median": (len(images) - 1) // 2, "best": len(images) - 1}
    names: dict[int, str] = {}
    for name, rank in ranks.items():
        if images:
            names.setdefault(rank, name)
    return [(name, images[rank]) for rank, name in names.items()]


def _test_images(facts: Facts, chain: Chain) -> Sequence[ScoredImage]:
    import pyarrow.parquet as pq

    key = scores_file(facts, chain)
    if key is None:
        return []
    digest = chain.stages[-1]
    images = pq.read_table(facts.store.images(digest, key)).to_pylist()
    case_of = {row["image"]: row.get("volume") or row["image"] for row in images}
    counts: dict[str, dict[str, NDArray[np.int64]]] = {}
    true_pixels: dict[str, Counter[str]] = {}
    for row in pq.read_table(facts.store.scores(digest, key)).to_pylist():
        if row["split"] == "test" and row["class"] != BACKGROUND:
            image, name = row["image"], case_of[row["image"]]
            by_class = counts.setdefault(name, {})
            by_class[row["class"]] = by_class.get(row["class"], 0) + np.array([row["tp"], row["fp"], row["fn"]])
            true_pixels.setdefault(name, Counter())[image] += row["tp"] + row["fn"]
    scored = []
    for name, by_class in counts.items():
        dice = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in by_class.values() if tp + fn]
        if dice:
            image = true_pixels[name].most_common(1)[0][0]
            scored.append(ScoredImage(chain=chain, name=name, image=image, dice=float(np.mean(dice))))
    return scored


def predict_cases(
    facts: Facts, images: Sequence[tuple[str, ScoredImage]], cache: Path
) -> tuple[list[OutlinedCase], tuple[str, ...]]:
    """Predict these images; return the cases to draw and the names of the classes.

    Raises:
        ValueError: The weights or the data are not available; the message is shown in the report.
    """
    if facts.plan is None:
        raise ValueError(f"the data cannot be read: {facts.no_plan_reason}")
    digests = {image.chain.stages[-1] for _, image in images}
    if not all(facts.store.has_weights(digest) for digest in digests):
        raise ValueError("the weights of the best cell were not kept (keep.weights)")
    names = facts.plan.views[facts.plan.target].index.classes
    return [_case(facts.plan, facts, name, image, cache) for name, image in images], names


def _case(plan: Plan, facts: Facts, name: str, image: ScoredImage, cache: Path) -> OutlinedCase:
    from safetensors.torch import load_file

    from datasets.decoding.decode import displayed
    from datasets.resampling import resized
    from datasets.settings import NATIVE, ImageSettings
    from datasets.targets import fit_image
    from study.training.job import RuntimeContext, stage_job
    from study.training.scoring.batches import predictions
    from study.training.train_stage import evaluation, open_setup

    digest = image.chain.stages[-1]
    job = stage_job(plan, plan.nodes[digest])
    scoring = next(scoring for scoring in job.scorings if scoring.key == image.chain.scoring)
    runtime = RuntimeContext(storage=facts.store.root, cache=cache, cpus=1, checkpoint=plan.spec.checkpoint)
    setup = open_setup(job, runtime)
    setup.network.load_state_dict(load_file(facts.store.weights(digest)))
    setup.network.eval()
    row = list(setup.view.index.ids).index(image.image)
    spec = evaluation(setup, scoring, cache)
    height, width = spec.shape_of(row)
    step = math.ceil(max(height, width) / MAX_SIDE)
    # Unlabelled pixels have no truth and are not scored.
    truth, predicted = _masks(predictions(setup.network, spec, [row]), step)
    pixels = setup.view.source.image(row)
    if step > 1:
        pixels = resized(pixels, *truth.shape[1:], shrinks=True)
    if scoring.size != NATIVE:
        pixels = fit_image(pixels, ImageSettings(size=scoring.size, channels=job.node.step.image.channels))
    whole = "" if image.image == image.name else " of the volume"
    return OutlinedCase(
        title=f"{name.capitalize()}: {image.image}\nDice {image.dice:.3f}{whole}, fold {image.chain.fold}",
        pixels=displayed(pixels.squeeze(axis=2) if pixels.shape[2:] == (1,) else pixels),
        truth=truth,
        predicted=predicted,
    )


def _masks(batches: "Iterable[EvaluatedBatch]", step: int) -> tuple[MaskArray, MaskArray]:
    """Return the true and the predicted masks (classes, H, W) of an image, every `step`-th pixel of each axis."""
    parts: list[tuple[MaskArray, MaskArray]] = []
    for batch in batches:
        first = -batch.lines.start % step
        truth, predicted = (masks[0, :, first::step, ::step].numpy() for masks in batch.labelled_masks())
        parts.append((truth, predicted))
    truth, predicted = (np.concatenate(masks, axis=1) for masks in zip(*parts, strict=True))
    return truth, predicted
