"""Stages with pseudo-labels from a plan to their weights: what labels depend on, interruptions, several students."""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from datasets.loading.prepare import Prepared
from datasets.source import IGNORE
from models.task_settings.pseudo_labels import PseudoLabelBlock
from study.planning.graph import Plan, lineage
from study.store.damage import DamagedStageError
from study.store.store import Store
from study.training.job import stage_job
from study.training.load_model import load_model, open_model
from study.training.loader import WorkerContext, to_images
from study.training.pseudo_labels import Labelling
from study.training.train_stage import (
    TrainingSetup,
    _labels_without_masks,
    open_setup,
    run_stage,
    stage_examples,
    train,
)
from tests.support.finished import CLASSES, write_pictures
from tests.support.stages import ignore, interrupt, runtime
from tests.support.tiny import planned, tiny
from tests.support.workers import together

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def document(root: Path, changes: dict[str, Any] | None = None, **block: object) -> dict[str, Any]:
    """Return a study of self-training on the images of a folder, half of whose masks are hidden."""
    trains = {"data": "hospital", "steps": 6, "batch_size": 4}
    return tiny({
        "data": {"hospital": {"source": "folder", "root": str(root), "classes": CLASSES}},
        "validation": {"min_cases": 1}, "image.fit": "letterbox", "compare.baseline": {},
        "stages": {
            "segment": {"task": "segmentation", **trains},
            "student": {"task": "pseudo_labels", **trains, "pseudo_labels": {"ensemble": 2, **block}},
        },
        "pathways": {"none": ["segment", "student"]}, "compare.labelled_fraction": [0.5], **(changes or {}),
    })  # fmt: skip


def last(plan: Plan) -> str:
    """Return the digest of the last stage of the first replicate."""
    return plan.replicates[0].chain[-1]


def trained(plan: Plan, storage: Path, cache: Path) -> Mapping[str, Tensor]:
    """Train the first replicate with all stages that it needs; return the weights of its last stage."""
    for digest in reversed(lineage(plan.node, [last(plan)])):
        run_stage(stage_job(plan, plan.nodes[digest]), runtime(storage, cache), WorkerContext(report=ignore))
    return load_file(Store(storage).weights(last(plan)))


def opened(plan: Plan, storage: Path, cache: Path) -> TrainingSetup:
    """Return the data of the last stage of the first replicate, with its pseudo-labels."""
    setup = open_setup(stage_job(plan, plan.nodes[last(plan)]), runtime(storage, cache))
    setup.weak = _labels_without_masks(setup, Store(storage), cache, CPU)
    return setup


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def replace_masks(root: Path, names: Iterable[str]) -> None:
    for name in names:
        file = root / "masks" / f"{name}.png"
        with Image.open(file) as mask:
            ids = np.asarray(mask)
        Image.fromarray(2 - ids).save(file)


def replace_images(root: Path, names: Iterable[str]) -> None:
    for name in names:
        file = root / "images" / f"{name}.png"
        with Image.open(file) as image:
            shape = np.asarray(image).shape
        noise = np.random.default_rng(int(name[1:])).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(noise).save(file)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_neither_test_images_nor_hidden_masks_change_a_weight(labels: str, tmp_path: Path) -> None:
    weights = []
    test, hidden, labelled = list[str](), list[str](), list[str]()
    for name in ("true", "garbage", "other mask"):
        root, cache = tmp_path / name, tmp_path / f"{name} cache"
        write_pictures(root, overlapping=False)
        replace_masks(root, labelled[:1] if name == "other mask" else [*test, *hidden])
        replace_images(root, test if name == "garbage" else [])
        plan = planned(document(root, labels=labels), cache)
        view = plan.views["hospital"]
        rows = view.stage_rows(plan.nodes[last(plan)].selection)
        test, hidden, labelled = (
            [view.index.ids[row] for row in numbers]
            for numbers in (plan.split(plan.replicates[0]).test, rows.unlabelled, rows.train)
        )
        assert min(len(test), len(hidden), len(labelled)) >= 2
        weights.append(trained(plan, root.with_suffix(".runs"), cache))
    assert equal(weights[0], weights[1])
    assert not equal(weights[0], weights[2])


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_labels_are_the_mean_of_the_teachers_at_confident_pixels(
    labels: str, overlapping: bool, cache: Path, tmp_path: Path
) -> None:
    root, storage = tmp_path / "data", tmp_path / "runs"
    write_pictures(root, overlapping=overlapping)
    confidence = 0.55 if overlapping else 0.4
    plan = planned(document(root, labels=labels, confidence=confidence), cache)
    trained(plan, storage, cache)
    setup = opened(plan, storage, cache)
    assert setup.weak is not None
    assert setup.weak.pixels.masks is not None
    place, row = 0, setup.rows.unlabelled[0]
    images = to_images(torch.from_numpy(setup.arrays.images[[row]]), CPU)
    models = [open_model(Store(storage), teacher) for teacher in plan.nodes[last(plan)].teachers]
    with torch.no_grad():
        logits = [model.network(images)[0] for model in models]
    p = np.mean([(part.sigmoid() if overlapping else part.softmax(dim=0)).numpy() for part in logits], axis=0)
    certainty = np.maximum(p, 1 - p) if overlapping else p.max(axis=0)
    expected = {
        ("hard", False): p.argmax(axis=0), ("hard", True): p >= 0.5,
        ("soft", False): 254 * p[1:], ("soft", True): 254 * p,
    }[labels, overlapping]  # fmt: skip
    expected = np.where(certainty < confidence, 255, expected)
    height, width = setup.view.index.shape(row)
    border = round(32 * (1 - min(height, width) / max(height, width)) / 2)
    inner = (slice(border, -border), slice(None)) if width > height else (slice(None), slice(border, -border))
    found = setup.weak.pixels.masks[place]
    assert np.abs(found[..., *inner] - expected[..., *inner]).max() <= (labels == "soft")
    outside = np.ones(found.shape[-2:], bool)
    outside[inner] = False
    assert (found[..., outside] == IGNORE).all()
    record = Store(storage).record(last(plan))["pseudo_labels"]
    masks, shapes = setup.weak.pixels.masks, setup.arrays.shapes
    inside = [32 * 32 * min(shapes[number]) / max(shapes[number]) for number in setup.rows.unlabelled]
    planes = masks.shape[1] if masks.ndim > 3 else 1
    shares = [np.sum(mask != IGNORE) / planes / pixels for mask, pixels in zip(masks, inside, strict=True)]
    assert record == {
        "teachers": list(plan.nodes[last(plan)].teachers), "labelled_pixels": pytest.approx(np.mean(shares), rel=0.05)
    }  # fmt: skip
    assert 0 < record["labelled_pixels"] < 1


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_an_interrupted_stage_that_labels_once_more_ends_with_the_same_bits(labels: str, tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_pictures(root, overlapping=False)
    augment = {"stages.student.augment": {"flip": 0.5, "rotate": 10, "noise": 0.05}}
    plan = planned(document(root, augment, labels=labels, confidence=0.5), cache)
    whole = trained(plan, tmp_path / "whole", cache)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(Store(tmp_path / "cut").stage(last(plan)))

    job = stage_job(plan, plan.nodes[last(plan)])
    interrupt(job, runtime(tmp_path / "cut", cache))
    shutil.rmtree(cache / "prepared")
    assert equal(whole, trained(plan, tmp_path / "cut", cache))
    model = open_model(Store(tmp_path / "cut"), job.digest)
    assert equal(whole, model.network.state_dict())


ONE_UPDATE = {"stages.student.steps": 1, "stages.student.optimizer": {"name": "sgd", "lr": 1e-4}}


def train_student(root: Path, cache: Path, storage: Path, rank: int, world: int) -> None:
    """Train the last stage of the first replicate on one of several workers."""
    plan = planned(document(root, ONE_UPDATE), cache)
    train(
        stage_job(plan, plan.nodes[last(plan)]), runtime(storage, cache),
        WorkerContext(report=ignore, rank=rank, world=world),
    )  # fmt: skip


def test_workers_learn_from_the_labels_that_one_worker_learns_from(tmp_path: Path) -> None:
    """After one update: later ones amplify the rounding of sums, as batch norm over few pixels does."""
    root, cache = tmp_path / "data", tmp_path / "cache"
    write_pictures(root, overlapping=False)
    plan = planned(document(root, ONE_UPDATE), cache)
    weights = trained(plan, tmp_path / "one", cache)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(Store(tmp_path / "two").stage(last(plan)))
    together(2, partial(train_student, root, cache, tmp_path / "two"))
    others = load_file(Store(tmp_path / "two").weights(last(plan)))
    losses = [
        pq.read_table(Store(storage).file(last(plan), "history.parquet"))["train/unlabelled_loss"].to_pylist()
        for storage in (tmp_path / "one", tmp_path / "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-2, atol=1e-3)


def test_a_stage_starts_again_if_it_would_resume_with_other_labels(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data"), tmp_path / "cache")
    store, job = Store(tmp_path / "runs"), stage_job(plan, plan.nodes[last(plan)])
    trained(plan, tmp_path / "runs", tmp_path / "cache")
    shutil.rmtree(store.stage(last(plan)))

    def epochs(*, until: int, cpus: int = 1) -> list[float]:
        """Train until the end of an epoch and return the numbers of the epochs."""
        numbers = []

        def report(scores: Mapping[str, float]) -> None:
            numbers.append(scores["epoch"])
            if scores["epoch"] == until:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            paths = runtime(tmp_path / "runs", tmp_path / "cache")
            run_stage(job, replace(paths, cpus=cpus), WorkerContext(report=report))
        return numbers

    assert epochs(until=2) == [1, 2]
    assert epochs(until=2) == [2]
    assert epochs(until=2, cpus=2) == [1, 2]  # other threads may round probabilities differently


def labelling_of(plan: Plan, storage: Path, cache: Path) -> Labelling:
    """Return the labelling of the last stage of the first replicate."""
    setup = open_setup(stage_job(plan, plan.nodes[last(plan)]), runtime(storage, cache))
    assert isinstance(setup.arrays, Prepared)
    return Labelling(
        node=setup.job.node, block=PseudoLabelBlock(), index=setup.view.index, arrays=setup.arrays,
        rows=setup.rows.unlabelled, store=Store(storage), device=CPU,
    )  # fmt: skip


def test_a_teacher_is_not_changed(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data"), cache)
    trained(plan, tmp_path / "runs", cache)
    labelling = labelling_of(plan, tmp_path / "runs", cache)
    models = [load_model(labelling.store, teacher) for teacher in plan.nodes[last(plan)].teachers]
    before = [{name: tensor.clone() for name, tensor in model.network.state_dict().items()} for model in models]
    labelling.label(models, np.zeros((len(labelling.rows), 32, 32), np.uint8))
    assert all(equal(tensors, model.network.state_dict()) for tensors, model in zip(before, models, strict=True))


def test_labels_do_not_depend_on_how_many_images_are_labelled_at_once(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data"), cache)
    trained(plan, tmp_path / "runs", cache)
    found = []
    for chunk_bytes in (1, 2**26):
        labelling = labelling_of(plan, tmp_path / "runs", cache)
        labelling = replace(labelling, rows=range(len(labelling.index)), chunk_bytes=chunk_bytes)
        assert len(labelling.rows) > labelling.batch_size
        found.append(np.zeros((len(labelling.rows), 32, 32), np.uint8))
        labelling.fill({"masks": found[-1]})
    np.testing.assert_array_equal(*found)
    assert len(np.unique(found[0])) > 1


def test_students_of_students_are_trained(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    again = {"stages.again": {"task": "pseudo_labels", "data": "hospital", "steps": 6, "batch_size": 4},
             "pathways": {"none": ["segment", "student", "again"]}}  # fmt: skip
    plan = planned(document(tmp_path / "data", again), cache)
    trained(plan, tmp_path / "runs", cache)
    student = plan.replicates[0].chain[1]
    assert Store(tmp_path / "runs").record(last(plan))["pseudo_labels"]["teachers"] == [student]


def test_the_weight_of_pseudo_labels_changes_the_weights(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    first, second = (
        trained(planned(document(tmp_path / "data", weight=weight), cache), tmp_path / "runs", cache)
        for weight in (0.0, 1.0)
    )
    assert not equal(first, second)


def test_a_student_that_nothing_is_carried_to_starts_from_the_initial_weights(cache: Path, tmp_path: Path) -> None:
    """Without weight of the pseudo-labels it is the stage that is trained on the masks alone, but for batch norm."""
    write_pictures(tmp_path / "data", overlapping=False)
    alone = {"task": "segmentation", "data": "hospital", "steps": 6, "batch_size": 4}
    fresh = {"stages.alone": alone, "compare.baseline": {},
             "pathways": {"fresh": ["segment", {"stage": "student", "carry": "none"}], "alone": ["alone"]}}  # fmt: skip
    plan = planned(document(tmp_path / "data", {**fresh, "validation": {"min_cases": 50}}, weight=0.0), cache)
    student, supervised = (plan.replicates[number].chain[-1] for number in (0, 2))
    for digest in reversed(lineage(plan.node, [student, supervised])):
        run_stage(stage_job(plan, plan.nodes[digest]), runtime(tmp_path, cache), WorkerContext(report=ignore))
    store = Store(tmp_path)
    first, second = (load_file(store.weights(digest)) for digest in (student, supervised))
    assert all(torch.equal(first[name], second[name]) for name in first if name.endswith((".weight", ".bias")))
    record = store.record(student)
    assert (record["initial_weights"], record["parent"]) == ("random", plan.nodes[student].teachers[0])


def test_a_teacher_without_weights_is_named_so_that_it_is_trained_again(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan, store = planned(document(tmp_path / "data"), cache), Store(tmp_path / "runs")
    trained(plan, tmp_path / "runs", cache)
    shutil.rmtree(store.stage(last(plan)))
    teacher = plan.nodes[last(plan)].teachers[1]
    store.weights(teacher).unlink()
    with pytest.raises(DamagedStageError) as raised:
        run_stage(
            stage_job(plan, plan.nodes[last(plan)]), runtime(tmp_path / "runs", cache), WorkerContext(report=ignore)
        )
    assert raised.value.digest == teacher
    with pytest.raises(DamagedStageError, match="safetensors is missing"):
        load_model(store, teacher)


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_augmentation_moves_images_and_their_labels_alike(labels: str, cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data", {"stages.student.augment": {"flip": 1.0}}, labels=labels), cache)
    trained(plan, tmp_path / "runs", cache)
    setup = opened(plan, tmp_path / "runs", cache)
    assert setup.weak is not None
    assert setup.weak.pixels.masks is not None
    rows = list(setup.rows.unlabelled)
    images, targets = stage_examples(setup, rows, labelled=False).draw(np.arange(len(rows)), (0, 0))
    np.testing.assert_array_equal(images, setup.arrays.images[rows][:, :, ::-1])
    np.testing.assert_array_equal(targets, setup.weak.pixels.masks[..., ::-1])


def test_pixels_that_augmentation_moves_in_from_outside_have_no_label(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    changes = {"stages.student.augment": {"shift": 0.3}, "image.fit": "stretch"}
    plan = planned(document(tmp_path / "data", changes), cache)
    trained(plan, tmp_path / "runs", cache)
    setup = opened(plan, tmp_path / "runs", cache)
    assert setup.weak is not None
    assert setup.weak.pixels.masks is not None
    examples = stage_examples(setup, setup.rows.unlabelled, labelled=False)
    _, targets = examples.draw(np.arange(len(setup.rows.unlabelled)), (0, 0))
    assert targets is not None
    assert not (setup.weak.pixels.masks == IGNORE).any()
    assert (targets == IGNORE).any()


def test_only_the_images_without_masks_are_in_the_cache(cache: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data"), cache)
    trained(plan, tmp_path / "runs", cache)
    setup = opened(plan, tmp_path / "runs", cache)
    assert setup.weak is not None
    assert setup.weak.pixels.masks is not None
    assert len(setup.weak.pixels.masks) == len(setup.rows.unlabelled) < len(setup.view.index)
