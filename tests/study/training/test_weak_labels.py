"""Stages with weak labels from a plan to their weights: their images, what they read of masks, interruptions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from datasets.source import BACKGROUND
from models.task_settings.weak_labels import weak_kind_of
from study.config.document import with_paths
from study.planning.dataset_view import DatasetView
from study.planning.graph import Plan, pool_of_stage
from study.store.store import Store
from study.training.job import StageJob, stage_job
from study.training.loader import WorkerContext
from study.training.oom import _train_step, _weak_target
from study.training.train_stage import _labels_without_masks, _training_loop, open_setup, run_stage, stage_examples
from tests.support.finished import CLASSES, write_pictures
from tests.support.stages import ignore, interrupt, runtime
from tests.support.tiny import planned, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("box", "points", "scribble", "class")
SHORT: dict[str, Any] = {
    "stages": {"segment": {"task": "segmentation", "data": "hospital", "steps": 6, "batch_size": 4}},
    "pathways": {"none": ["segment"]}, "compare.labelled_fraction": [0.5],
}  # fmt: skip


def job_of(plan: Plan) -> StageJob:
    """Return the job of the first replicate."""
    return stage_job(plan, plan.nodes[plan.replicates[0].chain[-1]])


def trained(job: StageJob, storage: Path, cache: Path) -> Mapping[str, Tensor]:
    """Train a stage; return its weights."""
    run_stage(job, runtime(storage, cache), WorkerContext(report=ignore))
    return load_file(Store(storage).weights(job.digest))


def on_pictures(root: Path, rest: str, **weak: object) -> dict[str, Any]:
    """Return a study of the images of a folder, half of whose masks are hidden."""
    return tiny({
        "data": {"hospital": {"source": "folder", "root": str(root), "classes": CLASSES}},
        "validation": {"min_cases": 1}, **SHORT, "stages.segment.rest": rest, "stages.segment.weak": weak,
    })  # fmt: skip


def changed_masks(root: Path, names: list[str], rest: str) -> None:
    """Change masks of a folder such that the weak labels that are derived from them stay the same."""
    for name in names:
        file = root / "masks" / f"{name}.png"
        with Image.open(file) as mask:
            ids = np.array(mask)
        if rest == "class":
            ids = ids[::-1]
        else:
            _remove_inside(ids)
        Image.fromarray(ids).save(file)


def _remove_inside(ids: NDArray[np.uint8]) -> None:
    """Set the inside of the second class to background; its bounding box stays the same. In place."""
    from scipy.ndimage import binary_erosion

    inside = binary_erosion(ids == 2, np.ones((3, 3)))
    assert inside.any()
    ids[inside] = 0


def write_own(root: Path, rest: str) -> None:
    """Write scribbles, or points, of both classes and of the background on all images of a folder."""
    lines = ["image,x,y,class"]
    for mask in sorted((root / "masks").glob("*.png")):
        with Image.open(mask) as opened:
            ids = np.array(opened)
        scribbles = np.full_like(ids, 255)
        for number, name in enumerate((BACKGROUND, *CLASSES)):
            row, column = np.argwhere(ids == number)[0]
            scribbles[row, column] = number
            lines.append(f"{mask.stem},{column + 0.5},{row + 0.5},{name}")
        if rest == "scribble":
            (root / "scribbles").mkdir(exist_ok=True)
            Image.fromarray(scribbles).save(root / "scribbles" / mask.name)
    if rest == "points":
        (root / "points.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def stages_with_changed_masks(
    place: Path, rest: str, cache: Path, *, change: str, own: bool
) -> Iterator[tuple[StageJob, DatasetView, Path]]:
    """Yield a stage, its data and a storage: of some images, then of them with changed hidden masks."""
    hidden: list[str] = []
    for root in (place / "true", place / "changed"):
        write_pictures(root, overlapping=False)
        if own:
            write_own(root, rest)
        changed_masks(root, hidden, change)
        plan = planned(on_pictures(root, rest), cache)
        job, view = job_of(plan), plan.views["hospital"]
        hidden = [view.index.ids[row] for row in view.stage_rows(job.node.selection).unlabelled]
        assert len(hidden) >= 2
        yield job, view, root.with_suffix(".runs")


@pytest.mark.parametrize("rest", ["box", "class"])
def test_hidden_masks_change_weights_only_through_their_weak_labels(rest: str, cache: Path, tmp_path: Path) -> None:
    weights, digests = [], []
    for job, view, storage in stages_with_changed_masks(tmp_path, rest, cache, change=rest, own=False):
        selection = job.node.selection
        assert view.weak_rows(selection).derived == view.stage_rows(selection).unlabelled
        weights.append(trained(job, storage, cache))
        digests.append(job.digest)
        record = Store(storage).record(job.digest)["weak_labels"]
        assert (record["kind"], record["weight"]) == (rest, 1.0)  # also where the study file does not set the weight
    assert digests[0] != digests[1]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("rest", ["points", "scribble"])
def test_hidden_masks_of_images_with_own_annotation_change_nothing(rest: str, cache: Path, tmp_path: Path) -> None:
    weights, digests = [], []
    for job, view, storage in stages_with_changed_masks(tmp_path, rest, cache, change="class", own=True):
        selection = job.node.selection
        assert view.weak_rows(selection).own == view.stage_rows(selection).unlabelled
        weights.append(trained(job, storage, cache))
        digests.append(job.digest)
    assert digests[0] == digests[1]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("rest", ["points", "scribble"])
def test_augmentation_annotates_no_further_pixels(rest: str, fit: str, cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    document = on_pictures(tmp_path / "data", rest) | {"image": {"size": 64, "fit": fit}}
    document = with_paths(document, {"stages.segment.augment": {"preset": "light", "shift": 0.3}})
    setup = open_setup(job_of(planned(document, cache)), runtime(tmp_path / "runs", cache))
    setup.weak = _labels_without_masks(setup, Store(tmp_path / "runs"), cache, torch.device("cpu"))
    rows = np.arange(len(pool_of_stage(setup.rows, setup.job.node.step)))
    examples = stage_examples(setup, setup.rows.unlabelled, labelled=False)
    _, still = examples.read(rows)
    moved = [examples.draw(rows, (0, epoch))[1] for epoch in range(4)]
    assert still is not None
    annotated = np.count_nonzero(still != 255)
    drawn = [np.count_nonzero(masks != 255) for masks in moved if masks is not None]
    assert len(drawn) == 4
    assert 0.3 * annotated < min(drawn) < max(drawn) < 1.3 * annotated


@pytest.mark.parametrize("rest", KINDS)
def test_weak_labels_change_the_weights(rest: str, cache: Path, tmp_path: Path) -> None:
    with_labels, without = (
        trained(job_of(planned(tiny({**SHORT, "stages.segment.rest": kind}), cache)), tmp_path / kind, cache)
        for kind in (rest, "none")
    )
    parameters = [name for name in without if name.endswith((".weight", ".bias"))]
    assert any(not torch.equal(with_labels[name], without[name]) for name in parameters)


@pytest.mark.parametrize("rest", KINDS)
def test_an_interrupted_stage_ends_with_the_same_bits(rest: str, cache: Path, tmp_path: Path) -> None:
    changes = {"stages.segment.rest": rest, "stages.segment.augment": {"flip": 0.5, "rotate": 10}}
    job = job_of(planned(tiny({**SHORT, **changes}), cache))
    whole = trained(job, tmp_path / "whole", cache)
    interrupt(job, runtime(tmp_path / "cut", cache))
    cut = trained(job, tmp_path / "cut", cache)
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("rest", KINDS)
def test_without_weight_the_parameters_are_those_of_masks_alone(rest: str, cache: Path, tmp_path: Path) -> None:
    """Statistics of batch norm are also those of images with weak labels, so that the last epoch is taken."""
    last = {**SHORT, "validation.min_cases": 50}
    weak = {"stages.segment.rest": rest, "stages.segment.weak": {"weight": 0.0}}
    weighted, without = (
        trained(job_of(planned(tiny({**last, **changes}), cache)), tmp_path / name, cache)
        for name, changes in (("weak", weak), ("none", {}))
    )
    parameters = [name for name in weighted if name.endswith((".weight", ".bias"))]
    assert all(torch.equal(weighted[name], without[name]) for name in parameters)


@pytest.mark.parametrize("rest", KINDS)
def test_memory_is_probed_with_labels_of_the_same_kind(rest: str, cache: Path, tmp_path: Path) -> None:
    job, place = job_of(planned(tiny({**SHORT, "stages.segment.rest": rest}), cache)), runtime(tmp_path, cache)
    setup, settings = open_setup(job, place), job.node.step.settings
    setup.weak = _labels_without_masks(setup, Store(tmp_path / "runs"), cache, torch.device("cpu"))
    loop = _training_loop(setup, WorkerContext(report=ignore), Store(tmp_path))
    (batch,) = next(iter(loop.loader.training(0, 0)))
    probe = _weak_target(weak_kind_of(settings), setup.task, 4, (32, 32), torch.device("cpu"))
    assert batch.weak is not None
    assert probe is not None
    for name, labels in vars(batch.weak).items():
        probed = getattr(probe, name)
        assert (labels is None) == (probed is None)
        if labels is not None and "box" not in name:
            assert (labels.shape, labels.dtype) == (probed.shape, probed.dtype)
    _train_step(job, place, torch.device("cpu"), 4)
