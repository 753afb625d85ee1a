"""Stages of consistency from a plan to their weights: images without masks, initial weights, patches, interruptions."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.adaptation import merge_adapters
from study.analysis.design import _notes
from study.planning.graph import Plan
from study.store.store import Store
from study.training.job import StageJob, stage_job
from study.training.load_model import open_model
from study.training.loader import WorkerContext
from study.training.train_stage import another_network, open_setup, run_stage
from tests.support.finished import CLASSES, IMAGES, write_pictures
from tests.support.stages import ignore, interrupt, runtime
from tests.support.tiny import planned, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ("mean_teacher", "fixmatch", "unimatch", "cross_pseudo")
SHORT: dict[str, Any] = {
    "stages.classify.epochs": 1,
    "stages.segment": {"task": "consistency", "data": "hospital", "steps": 4, "batch_size": 4},
    "compare.labelled_fraction": [0.5],
}  # fmt: skip


def chain(plan: Plan, pathway: str = "none") -> list[StageJob]:
    """Return the jobs of the first replicate of a pathway."""
    replicate = next(
        candidate for candidate in plan.replicates if plan.arms[candidate.arm].factors["pathway"] == pathway
    )
    return [stage_job(plan, plan.nodes[digest]) for digest in replicate.chain]


def trained(job: StageJob, storage: Path, cache: Path) -> Mapping[str, Tensor]:
    """Train a stage; return its weights."""
    run_stage(job, runtime(storage, cache), WorkerContext(report=ignore))
    return load_file(Store(storage).weights(job.digest))


def study_on_images(root: Path, **block: object) -> dict[str, Any]:
    """Return a study of the images of a folder, half of whose masks are hidden."""
    changes = {
        "data": {"hospital": {"source": "folder", "root": str(root), "classes": CLASSES}},
        "validation": {"min_cases": 1},
        "stages": {"segment": SHORT["stages.segment"] | {"steps": 6, "consistency": {"ramp_up": 0.0, **block}}},
        "pathways": {"none": ["segment"]}, "compare.labelled_fraction": [0.5],
    }  # fmt: skip
    return tiny(changes)


def exchange_classes(root: Path, names: Iterable[str]) -> None:
    """Exchange background and second class in some masks of a folder."""
    for name in names:
        file = root / "masks" / f"{name}.png"
        with Image.open(file) as mask:
            ids = np.asarray(mask)
        Image.fromarray(2 - ids).save(file)


@pytest.mark.parametrize("method", METHODS)
def test_hidden_masks_do_not_change_the_weights(method: str, cache: Path, tmp_path: Path) -> None:
    roots, weights, digests = [tmp_path / name for name in ("true", "garbage")], [], []
    hidden: list[str] = []
    for root in roots:
        write_pictures(root, overlapping=False)
        if root is roots[1]:
            exchange_classes(root, hidden)
        plan = planned(study_on_images(root, method=method), cache)
        (job,) = chain(plan)
        view = plan.views["hospital"]
        hidden = [view.index.ids[row] for row in view.stage_rows(job.node.selection).unlabelled]
        assert len(hidden) >= 2
        weights.append(trained(job, root.with_suffix(".runs"), cache))
        digests.append(job.digest)
    assert digests[0] == digests[1]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


@pytest.mark.parametrize("method", METHODS)
def test_unlabelled_images_are_those_of_the_pool(method: str, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_pictures(root, overlapping=False)
    without = [f"p{number}" for number in range(IMAGES) if number in (1, 6)]
    for name in without:
        (root / "masks" / f"{name}.png").unlink()
    pools, weights = {}, {}
    for pool in ("hidden", "all"):
        plan = planned(study_on_images(root, method=method, unlabelled=pool), cache)
        (job,) = chain(plan)
        view = plan.views["hospital"]
        rows = view.stage_rows(job.node.selection)
        pools[pool] = {view.index.ids[row] for row in rows.unlabelled}
        assert pools[pool].isdisjoint(view.index.ids[row] for row in (*rows.train, *rows.validation))
        weights[pool] = trained(job, tmp_path / pool, cache)
        assert Store(tmp_path / pool).record(job.digest)["data"]["unlabelled"] == len(pools[pool])
    assert pools["hidden"].isdisjoint(without)
    assert pools["all"] == pools["hidden"] | set(without)
    assert any(not torch.equal(tensor, weights["all"][name]) for name, tensor in weights["hidden"].items())


def test_a_single_unlabelled_image_is_not_used_as_stated_in_record_and_note(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_pictures(root, overlapping=False)
    document = study_on_images(root, method="fixmatch", unlabelled="all")
    document["compare"]["labelled_fraction"] = [1.0]
    (root / "masks" / "p1.png").unlink()
    plan = planned(document, cache)
    (job,) = chain(plan)
    assert len(plan.views["hospital"].stage_rows(job.node.selection).unlabelled) == 1
    trained(job, tmp_path / "runs", cache)
    assert Store(tmp_path / "runs").record(job.digest)["data"]["unlabelled"] == 0
    assert "fewer than 2 unlabelled images: consistency training on labelled images alone" in _notes(plan)[job.digest]


def setup_of(job: StageJob, storage: Path, cache: Path) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Return the weights of a network with random weights, and of another one with those of the stage."""
    setup = open_setup(job, runtime(storage, cache))
    second = another_network(setup, Store(storage))
    merge_adapters(second)
    return setup.network.state_dict(), second.state_dict()


def assert_all_drawn_anew(first: Mapping[str, Tensor], second: Mapping[str, Tensor], part: str) -> None:
    kernels = [name for name, tensor in first.items() if name.startswith(part) and tensor.dim() == 4]
    assert kernels
    assert not any(torch.equal(first[name], second[name]) for name in kernels)


def test_the_second_network_has_other_random_weights(cache: Path, tmp_path: Path) -> None:
    (job,) = chain(planned(tiny(SHORT), cache))
    first, second = setup_of(job, tmp_path, cache)
    for part in ("encoder.", "decoder.", "head."):
        assert_all_drawn_anew(first, second, part)


@pytest.mark.parametrize("adapt", ["full", "lora"])
def test_the_second_network_has_the_weights_that_are_carried(adapt: str, cache: Path, tmp_path: Path) -> None:
    classify, segment = chain(planned(tiny(SHORT | {"stages.segment.adapt": adapt}), cache), "one_step")
    parent = trained(classify, tmp_path, cache)
    first, second = setup_of(segment, tmp_path, cache)
    assert all(torch.equal(second[name], tensor) for name, tensor in parent.items() if name.startswith("encoder."))
    assert_all_drawn_anew(first, second, "decoder.")


def test_the_second_network_has_the_weights_of_a_file(cache: Path, tmp_path: Path) -> None:
    (job,) = chain(planned(tiny(SHORT), cache))
    encoder = open_setup(job, runtime(tmp_path, cache)).network.encoder.state_dict()
    tensors = {name: torch.full_like(tensor, 0.5) for name, tensor in encoder.items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    weights = {"compare.initial_weights": [{"file": str(tmp_path / "weights.safetensors")}]}
    (job,) = chain(planned(tiny(SHORT | weights), cache))
    _, second = setup_of(job, tmp_path, cache)
    assert all(torch.equal(second[f"encoder.{name}"], tensor) for name, tensor in tensors.items())


VARIANTS: dict[str, dict[str, Any]] = {
    "mean teacher on patches": {
        "stages.segment.image": {"fit": "patch"}, "stages.segment.patch": {"per_image": 2},
        "stages.segment.consistency": {"method": "mean_teacher", "momentum": 0.5},
    },
    "fixmatch, strong recipe, balanced": {
        "stages.segment.recipe": "strong", "stages.segment.balance": {"images": 12},
        "stages.segment.consistency": {"method": "fixmatch", "confidence": 0.5},
    },
    "unimatch, bf16": {
        "stages.segment.precision": "bf16", "stages.segment.consistency": {"method": "unimatch", "confidence": 0.5},
    },
    "cross pseudo supervision, moving average": {
        "stages.segment.average": {"name": "ema", "decay": 0.5},
        "stages.segment.consistency": {"method": "cross_pseudo"},
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_an_interrupted_stage_ends_bitwise_equal_and_is_restored(
    changes: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    augment = {"stages.segment.augment": {"flip": 0.5, "rotate": 10}} if "stages.segment.recipe" not in changes else {}
    (job,) = chain(planned(tiny({**SHORT, "stages.segment.steps": 6, **augment, **changes}), cache))
    uninterrupted = trained(job, tmp_path / "whole", cache)
    interrupt(job, runtime(tmp_path / "cut", cache))
    cut = trained(job, tmp_path / "cut", cache)
    assert all(torch.equal(tensor, cut[name]) for name, tensor in uninterrupted.items())
    model = open_model(Store(tmp_path / "cut"), job.digest)
    assert all(torch.equal(tensor, uninterrupted[name]) for name, tensor in model.network.state_dict().items())


def test_the_saved_weights_of_a_mean_teacher_are_those_of_its_teacher(cache: Path, tmp_path: Path) -> None:
    """Without weight and momentum the teacher equals a network trained on masks alone."""
    last_epoch = {**SHORT, "validation.min_cases": 50}
    blocks = [{"method": "mean_teacher", "weight": 0.0, "momentum": momentum} for momentum in (0.0, 0.9)]
    segment = [{"stages.segment.consistency": block} for block in blocks]
    network, teacher, supervised = (
        trained(chain(planned(tiny({**last_epoch, **changes}), cache))[0], tmp_path, cache)
        for changes in (*segment, {"stages.segment.task": "segmentation"})
    )
    assert network.keys() == teacher.keys() == supervised.keys()
    # Statistics of batch norm also include images without masks.
    parameters = [name for name in network if name.endswith((".weight", ".bias"))]
    assert all(torch.equal(network[name], supervised[name]) for name in parameters)
    assert not any(torch.equal(teacher[name], supervised[name]) for name in parameters if "conv" in name)
