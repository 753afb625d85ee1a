"""Jobs performed by a worker, in this process."""

import json
import pickle
import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from datasets.loading.mixing import MixedExamples
from datasets.loading.truth import truth
from datasets.targets import fit_masks
from models.network import Network
from models.tasks.segmentation import Segmentation
from study.execution.node_check import node_check
from study.execution.worker import Worker
from study.planning.graph import Plan
from study.search.controller import values_of
from study.store.atomic import write_signed
from study.store.damage import DamagedStageError
from study.store.lease import LeaseHeld, lease
from study.store.paths import WEIGHTS
from study.store.store import Store
from study.training.job import StageJob, stage_job
from study.training.load_model import open_model
from study.training.loader import UnusableGpu, WorkerContext, process_device
from study.training.oom import too_large
from study.training.train_stage import DataChanged, Member, _history_table, open_setup, run_stage, stage_examples
from study.training.trainer import Diverged
from tests.support.finished import CLASSES, write_pictures
from tests.support.stages import ignore, interrupt, runtime
from tests.support.tiny import planned, tiny

SMALL = {"stages.classify.epochs": 1, "stages.segment.steps": 4, "compare.folds": 2}


def perform(job: StageJob, storage: Path, cache: Path) -> None:
    run_stage(job, runtime(storage, cache), WorkerContext(report=ignore))


def chain(plan: Plan, pathway: str) -> list[StageJob]:
    """Return the jobs of a pathway's first replicate."""
    row = next(candidate for candidate in plan.replicates if plan.arms[candidate.arm].factors["pathway"] == pathway)
    return [stage_job(plan, plan.nodes[digest]) for digest in row.chain]


@pytest.fixture(scope="module")
def plan(cache: Path) -> Plan:
    return planned(tiny(SMALL), cache)


@pytest.fixture(scope="module")
def finished(plan: Plan, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One replicate of both pathways, finished. Tests that change it copy it first."""
    storage = tmp_path_factory.mktemp("storage")
    for job in [*chain(plan, "none"), *chain(plan, "one_step")]:
        perform(job, storage, cache)
    return Store(storage)


def test_published_stage_has_every_documented_file(finished: Store, plan: Plan) -> None:
    classify, segment = chain(plan, "one_step")
    promised = {"stage.yaml", WEIGHTS, "history.parquet", "transfer.json", "seal.json"}
    key = segment.scorings[0].key
    scores = {f"scores-{key}.parquet", f"images-{key}.parquet"}

    assert {path.name for path in finished.stage(classify.digest).iterdir()} == promised
    assert {path.name for path in finished.stage(segment.digest).iterdir()} == promised | scores


@pytest.mark.parametrize(("gpus", "kind"), [(0.0, "cpu"), (0.5, "cuda"), (1.0, "cuda")])
def test_a_stage_uses_a_gpu_only_with_a_share_of_one(gpus: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert process_device(gpus).type == kind


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that torch can use")
def test_a_gpu_that_torch_cannot_use_is_reported_with_a_remedy(plan: Plan, cache: Path, tmp_path: Path) -> None:
    job = chain(plan, "none")[0]
    worker = Worker({job.digest: job}, replace(runtime(tmp_path, cache), gpus=1.0))
    outcome = worker(job.digest, ignore)
    assert outcome.status == "failed"
    assert outcome.detail.startswith("this machine cannot use its GPU with torch ")
    assert outcome.detail.endswith("; install them, or set resources.gpus: 0")


ADVERSARIAL = {"task": "adversarial", "adversarial": {"lambda2": 0.1, "lambda_semi": 0.1, "semi_start": 5}}
TWO_PHASES = {
    "task": "adversarial",
    "adversarial": {"unlabelled_start": 1, "freeze_discriminator": True, "unlabelled_only": True},
}
TWO_NETWORKS = {"task": "consistency", "consistency": {"method": "cross_pseudo"}}
OUT_OF_MEMORY = {
    "in one pass": ({"batch_size": 16}, 2, "batch_size 2 fits; set that, or accumulate 8"),
    "in parts": ({"batch_size": 16, "accumulate": 2}, 2, "batch_size 4 fits; set that, or accumulate 8"),
    "bf16": ({"batch_size": 8, "precision": "bf16"}, 4, "batch_size 4 fits; set that, or accumulate 2"),
    "adversarial": (ADVERSARIAL | {"batch_size": 8}, 2, "batch_size 2 fits; set that"),
    "adversarial in two phases": (TWO_PHASES | {"batch_size": 8}, 2, "batch_size 2 fits; set that"),
    "two networks": (TWO_NETWORKS | {"batch_size": 8}, 2, "batch_size 2 fits; set that"),
    "no batch size": ({"batch_size": 8}, 0, "not even 1 at once fits; lower image.size"),
    "too few values to normalise": ({"batch_size": 5, "architecture": "deeplabv3"}, 2, "batch_size 2 fits; set that"),
    "fewer": ({"batch_size": 4, "architecture": "deeplabv3"}, 1, "not even 2 at once fit; lower image.size"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "fit", "remedy"), OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_out_of_memory_message_names_a_batch_size_that_fits(
    changes: dict[str, Any], fit: int, remedy: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, passes = Network.forward, []

    def forward_with_little_memory(network: Network, images: torch.Tensor, *, deep: bool = False) -> torch.Tensor:
        if network.training:
            passes.append((len(images), torch.is_autocast_enabled("cpu")))
            if len(images) > fit:
                raise torch.OutOfMemoryError
        return forward(network, images, deep=deep)

    monkeypatch.setattr(Network, "forward", forward_with_little_memory)
    stage = {f"stages.segment.{key}": value for key, value in changes.items()}
    job = chain(planned(tiny(SMALL | {"image.size": 64} | stage), cache), "none")[0]
    error = torch.OutOfMemoryError("in another process")
    assert too_large(job, runtime(tmp_path, cache), torch.device("cpu"), error).endswith(f"; {remedy}")
    assert {half for _, half in passes} == {"precision" in changes}
    learned = [images for images, _ in passes if images <= fit]
    passes_that_fit = 4 if "consistency" in changes else 2 if "adversarial" in changes else 1
    assert len(learned) == (0 if remedy.startswith("not") else passes_that_fit)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "not even 1 at once fits; lower image.size"),
        ({"freeze": ["encoder"]}, "batch_size 4 fits; set that, or accumulate 2"),
        ({"freeze": ["encoder"], "unfreeze_after": 1}, "not even 1 at once fits; lower image.size"),
        ({"adapt": "norm"}, "batch_size 4 fits; set that, or accumulate 2"),
        ({"adapt": {"name": "lora"}}, "batch_size 4 fits; set that, or accumulate 2"),
    ],
)
def test_out_of_memory_remedy_is_determined_with_the_trained_parameters(
    changes: dict[str, Any], remedy: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Network.forward

    def forward_with_little_memory(network: Network, images: torch.Tensor, *, deep: bool = False) -> torch.Tensor:
        trained = sum(parameter.numel() for parameter in network.encoder.parameters() if parameter.requires_grad)
        is_whole = trained > sum(parameter.numel() for parameter in network.encoder.parameters()) / 2
        if network.training and (is_whole or len(images) > 4):
            raise torch.OutOfMemoryError
        return forward(network, images, deep=deep)

    monkeypatch.setattr(Network, "forward", forward_with_little_memory)
    link = {key: value for key, value in changes.items() if key != "adapt"}
    document = {
        **SMALL, "image.size": 64, "stages.segment.batch_size": 8,
        "stages.segment.adapt": changes.get("adapt", "full"),
        "pathways.one_step": ["classify", {"stage": "segment"} | link],
    }  # fmt: skip
    job = chain(planned(tiny(document), cache), "one_step")[-1]
    error = torch.OutOfMemoryError()
    assert too_large(job, runtime(tmp_path, cache), torch.device("cpu"), error).endswith(f"; {remedy}")


def test_averaged_weights_are_evaluated_by_their_own_scores(cache: Path, tmp_path: Path) -> None:
    job = chain(planned(tiny(SMALL | {"stages.segment.average": {"start": 0.0}}), cache), "none")[0]
    perform(job, tmp_path, cache)
    store = Store(tmp_path)
    scores = store.record(job.digest)["averaged_scores"]
    assert values_of(store, job.digest, ["val/dice", "val/loss"]) == [scores["dice"], scores["loss"]]


@pytest.mark.parametrize("image", [{"size": 32}, {"size": 32, "fit": "patch"}], ids=["whole images", "patches"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_balanced_class_weights_are_those_of_the_training_masks(
    image: dict[str, object], exclusive: bool, cache: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "data", overlapping=not exclusive)
    changes: dict[str, Any] = {
        "data": {"hospital": {"source": "folder", "root": str(tmp_path / "data"), "classes": CLASSES}},
        "validation.min_cases": 1, "pathways": {"none": ["segment"]}, "image": image,
        "stages.segment.class_weights": "balanced",
    }  # fmt: skip
    document = tiny(SMALL | changes)
    document["stages"].pop("classify")
    (job, *_) = chain(planned(document, cache), "none")
    setup = open_setup(job, runtime(tmp_path, cache))
    pixels = dict.fromkeys(("background", *CLASSES) if exclusive else CLASSES, 0)
    for row in setup.rows.train:
        masks = setup.view.source.masks(row)
        masks = masks if "fit" in image else fit_masks(masks, job.node.step.image)
        for number, name in enumerate(pixels):
            pixels[name] += int((masks == number).sum() if exclusive else masks[number].sum())
    assert isinstance(setup.task, Segmentation)
    weights = setup.task.settings.class_weights
    assert isinstance(weights, Mapping)
    inverse = {name: 1 / count for name, count in pixels.items()}
    mean = sum(inverse.values()) / len(inverse)
    assert weights == pytest.approx({name: value / mean for name, value in inverse.items()})
    perform(job, tmp_path / "runs", cache)
    assert Store(tmp_path / "runs").finished() == {job.digest}


def test_balanced_class_weights_of_boxes_are_those_of_the_filled_boxes(cache: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"stages.segment.class_weights": "balanced", "stages.segment.target": "box_mask"}
    document = tiny(SMALL | changes | {"pathways.none": ["segment", "last"]})
    document["stages"]["last"] = {"task": "segmentation", "data": "hospital", "steps": 2}
    document["pathways"]["one_step"] = ["classify", "last"]
    job = chain(planned(document, cache), "none")[0]
    setup = open_setup(job, runtime(tmp_path, cache))
    assert isinstance(setup.task, Segmentation)
    assert isinstance(setup.task.settings.class_weights, Mapping)
    assert set(setup.task.settings.class_weights) == set(setup.view.index.structures)


def test_a_stage_with_deep_supervision_and_a_moving_average_is_resumed_and_restored(
    cache: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "stages.segment.deep_supervision": True, "stages.segment.average": {"name": "ema", "decay": 0.9},
        "stages.segment.steps": 8,
    }  # fmt: skip
    (job,) = chain(planned(tiny(SMALL | changes), cache), "none")
    perform(job, tmp_path / "whole", cache)
    interrupt(job, runtime(tmp_path / "cut", cache))
    perform(job, tmp_path / "cut", cache)
    uninterrupted, cut = (load_file(Store(tmp_path / place).weights(job.digest)) for place in ("whole", "cut"))
    assert uninterrupted.keys() == cut.keys()
    assert all(torch.equal(tensor, cut[name]) for name, tensor in uninterrupted.items())
    assert any(name.startswith("auxiliary_heads.") for name in uninterrupted)
    model = open_model(Store(tmp_path / "cut"), job.digest)
    assert all(torch.equal(tensor, uninterrupted[name]) for name, tensor in model.network.state_dict().items())


@pytest.mark.parametrize("error", [DataChanged.of("the sky is"), UnusableGpu("cannot")], ids=repr)
def test_errors_can_be_pickled(error: Exception) -> None:
    assert repr(pickle.loads(pickle.dumps(error))) == repr(error)


def test_a_finished_stage_leaves_no_work_folder(finished: Store) -> None:
    assert [path.name for path in (finished.root / "work").iterdir()] == [".lock"]


def test_record_contains_updates_seed_and_data(finished: Store, plan: Plan) -> None:
    job = chain(plan, "none")[0]
    record = finished.record(job.digest)

    assert (record["updates"], record["seed"], record["data"]["fingerprint"]) == (4, 0, job.fingerprint)
    assert record["settings"]["steps"] == 4


def test_seconds_of_a_stage_are_those_of_all_attempts(plan: Plan, cache: Path, tmp_path: Path) -> None:
    job = chain(plan, "none")[0]

    def cut(row: Mapping[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(job, runtime(tmp_path, cache), WorkerContext(report=cut))
    (state,) = (tmp_path / "work" / job.digest).glob("*/epoch-*/state.json")
    state_record = json.loads(state.read_text())
    state_record["numbers"]["progress"]["seconds"] = 1000.0
    write_signed(state, {name: state_record[name] for name in ("stage", "numbers", "parts")})
    perform(job, tmp_path, cache)
    assert 1000 < Store(tmp_path).record(job.digest)["seconds"] < 1100


def transfer(store: Store, job: StageJob) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((store.stage(job.digest) / "transfer.json").read_text())
    return read


def test_transfer_lists_carried_and_new_tensors(finished: Store, plan: Plan) -> None:
    classify, segment = chain(plan, "one_step")
    record, weights = transfer(finished, segment), load_file(finished.weights(segment.digest))

    assert record["from"] == classify.digest
    assert set(record["carried"]) == {name for name in weights if name.startswith("encoder.")}
    assert set(record["new"]) == {name for name in weights if not name.startswith("encoder.")}
    assert all(name.startswith("head.") for name in record["left_behind"])


def test_transfer_of_a_first_stage_names_its_initial_weights(finished: Store, plan: Plan) -> None:
    assert transfer(finished, chain(plan, "none")[0])["from"] == "random"


def test_carried_frozen_encoder_equals_that_of_the_parent(cache: Path, tmp_path: Path, finished: Store) -> None:
    links = ["classify", {"stage": "segment", "freeze": ["encoder"]}]
    classify, segment = chain(planned(tiny({**SMALL, "pathways.one_step": links}), cache), "one_step")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / classify.digest).symlink_to(finished.stage(classify.digest))
    perform(segment, tmp_path, cache)
    parent, child = (load_file(Store(tmp_path).weights(job.digest)) for job in (classify, segment))

    assert all(torch.equal(child[name], parent[name]) for name in child if name.startswith("encoder."))


@pytest.mark.parametrize("average", [None, {"name": "ema"}])
def test_a_stage_with_adapters_ends_as_an_ordinary_network(
    average: dict[str, str] | None, cache: Path, tmp_path: Path, finished: Store
) -> None:
    changes = {**SMALL, "stages.segment.adapt": {"name": "lora", "rank": 2}, "stages.segment.average": average}
    classify, segment = chain(planned(tiny(changes), cache), "one_step")
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / classify.digest).symlink_to(finished.stage(classify.digest))
    perform(segment, tmp_path, cache)
    parent, child = (load_file(Store(tmp_path).weights(job.digest)) for job in (classify, segment))
    network = open_model(Store(tmp_path), segment.digest).network

    assert child.keys() == network.state_dict().keys()
    changed = {name for name in parent if name.startswith("encoder.") and not torch.equal(parent[name], child[name])}
    ungrouped = {
        f"encoder.{name}.weight"
        for name, layer in network.encoder.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1
    }
    assert changed == ungrouped


@pytest.mark.parametrize(("changes", "is_mixed"), [({"cutmix": 0.5}, True), ({"copy_paste": 0.5}, True), ({}, False)])
def test_only_labelled_training_examples_are_mixed(
    changes: dict[str, float], is_mixed: bool, cache: Path, tmp_path: Path
) -> None:
    job = chain(planned(tiny({**SMALL, "stages.segment.augment": changes}), cache), "none")[0]
    setup = open_setup(job, runtime(tmp_path, cache))
    assert isinstance(stage_examples(setup, setup.rows.train), MixedExamples) == is_mixed
    for labelled, trains in ((False, True), (True, False)):
        assert not isinstance(stage_examples(setup, setup.rows.train, labelled=labelled, trains=trains), MixedExamples)


def test_a_stage_trains_on_mixed_and_strongly_augmented_images(cache: Path, tmp_path: Path) -> None:
    augment = {"preset": "strong", "flip": 0.5, "quarter_turns": 0.5, "sharpness": 1, "dropout": 0.2, "cutmix": 0.5,
               "copy_paste": 0.5}  # fmt: skip
    job = chain(planned(tiny({**SMALL, "stages.segment.augment": augment}), cache), "none")[0]
    perform(job, tmp_path / "first", cache)
    perform(job, tmp_path / "second", cache)
    weights = [load_file(Store(tmp_path / name).weights(job.digest)) for name in ("first", "second")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def scores_of(store: Store, job: StageJob, number: int = 0) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(store.scores(job.digest, job.scorings[number].key)).to_pylist()
    return rows


def test_scores_have_one_row_per_image_class_and_split(finished: Store, plan: Plan, cache: Path) -> None:
    job = chain(plan, "none")[0]
    setup = open_setup(job, runtime(finished.root, cache))
    scoring = job.scorings[0]
    split = setup.view.split(fold=scoring.fold, seed=scoring.seed, labelled=scoring.labelled)
    rows = scores_of(finished, job)
    places = [(row["image"], row["class"], row["split"]) for row in rows]
    ids = setup.view.index.ids

    assert split.validation
    expected = {(ids[row], name, "test") for row in split.test for name in job.node.identity.names}
    expected |= {(ids[row], name, "validation") for row in split.validation for name in job.node.identity.names}
    assert len(places) == len(set(places))
    assert set(places) == expected


def test_counts_equal_numpy(finished: Store, plan: Plan, cache: Path) -> None:
    job = chain(plan, "none")[0]
    setup = open_setup(job, runtime(finished.root, cache))
    setup.network.load_state_dict(load_file(finished.weights(job.digest)))
    setup.network.eval()
    masks = truth(setup.view.source, setup.view.index, job.scorings[0].size, cache)
    ids = list(setup.view.index.ids)
    for row in scores_of(finished, job):
        place = ids.index(row["image"])
        pixels = setup.arrays.images[place].astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        with torch.no_grad():
            logits = setup.network(torch.from_numpy(pixels[None])).numpy()[0].astype(np.float64)
        channel = job.node.identity.names.index(row["class"])
        predicted = 1 / (1 + np.exp(-logits[channel])) >= 0.5
        is_true = masks[[place]][0, channel].astype(bool)
        counted = [
            (predicted & is_true).sum(), (predicted & ~is_true).sum(),
            (~predicted & is_true).sum(), (~predicted & ~is_true).sum(),
        ]  # fmt: skip
        # A probability at the threshold may fall on either side when images are batched differently.
        stored_counts = [row[name] for name in ("tp", "fp", "fn", "tn")]
        assert np.abs(np.subtract(stored_counts, counted)).max() <= 1, row["image"]
        assert sum(row["positives"]) == row["tp"] + row["fn"]
        assert sum(row["negatives"]) == row["fp"] + row["tn"]


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    names = (WEIGHTS, "history.parquet", "stage.yaml", "seal.json")
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) for name in names}


@pytest.mark.parametrize(
    "change",
    [{"evaluate.threshold": 0.3}, {"evaluate.threshold": 0.3333}, {"evaluate.size": 48}, {"evaluate.size": "native"}],
    ids=["threshold on the grid", "threshold off the grid", "size", "native size"],
)  # fmt: skip
def test_another_evaluation_scores_again_without_training(finished: Store, cache: Path, change: dict[str, Any]) -> None:
    job = chain(planned(tiny(SMALL | change), cache), "none")[0]
    folder = finished.stage(job.digest)
    before = marks(folder)
    reports: list[object] = []
    run_stage(job, runtime(finished.root, cache), WorkerContext(report=reports.append))

    assert marks(folder) == before
    assert reports == []
    assert finished.scored(job.digest, job.scorings[0].key)
    side = {"native": 64, 48: 48}.get(change.get("evaluate.size"), 32)
    assert all(row["tp"] + row["fp"] + row["fn"] + row["tn"] == side * side for row in scores_of(finished, job))


PATCHES: dict[str, Any] = {
    **SMALL, "stages.segment.image": {"fit": "patch"}, "stages.segment.patch": {"foreground": 0.5, "per_image": 2},
}  # fmt: skip


def test_patches_start_from_a_stage_of_resized_images_and_are_scored_at_the_size_of_the_image(
    tmp_path: Path, cache: Path
) -> None:
    """Images have 64 pixels per side, the network's input 32."""
    plan = planned(tiny(PATCHES), cache)
    assert {replicate.scoring.size for replicate in plan.replicates} == {"native"}
    for job in chain(plan, "one_step"):
        perform(job, tmp_path, cache)
    store = Store(tmp_path)
    assert json.loads(store.file(job.digest, "transfer.json").read_text())["carried"]
    assert all(row["tp"] + row["fp"] + row["fn"] + row["tn"] == 64 * 64 for row in scores_of(store, job))


def test_patches_train_the_same_after_an_interruption(tmp_path: Path, cache: Path) -> None:
    job = chain(planned(tiny(PATCHES), cache), "none")[0]
    perform(job, tmp_path / "whole", cache)

    def stop(scores: Any) -> None:  # noqa: ANN401 - scores of an epoch
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(job, runtime(tmp_path / "stopped", cache), WorkerContext(report=stop))
    perform(job, tmp_path / "stopped", cache)
    uninterrupted, resumed = (load_file(Store(tmp_path / name).weights(job.digest)) for name in ("whole", "stopped"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in uninterrupted.items())


def test_several_workers_score_again_in_the_first_of_them(finished: Store, cache: Path) -> None:
    job = chain(planned(tiny({**SMALL, "evaluate.size": 40}), cache), "none")[0]
    scored = []

    def spread(member: Member) -> None:
        for rank in (1, 0):
            member(WorkerContext(report=ignore, rank=rank, world=2))
            scored.append(finished.scored(job.digest, job.scorings[0].key))

    run_stage(job, runtime(finished.root, cache), WorkerContext(report=ignore), spread)
    assert scored == [False, True]


@pytest.fixture(scope="module")
def second_run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StageJob, Store]:
    """Train the stage a second time elsewhere, and score its network at threshold 0.3."""
    storage = tmp_path_factory.mktemp("again")
    job = chain(planned(tiny({**SMALL, "evaluate.threshold": 0.3}), cache), "none")[0]
    perform(job, storage, cache)
    return job, Store(storage)


def test_scores_from_histograms_are_those_of_the_network(
    finished: Store, second_run: tuple[StageJob, Store], cache: Path
) -> None:
    job, other_storage = second_run
    perform(job, finished.root, cache)

    assert scores_of(finished, job) == scores_of(other_storage, job)


def test_equal_jobs_train_equal_weights(finished: Store, second_run: tuple[StageJob, Store]) -> None:
    job, other_storage = second_run
    first, second = (load_file(store.weights(job.digest)) for store in (finished, other_storage))

    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_finished_stage_is_not_read_again(finished: Store, plan: Plan, tmp_path: Path) -> None:
    job = chain(plan, "none")[0]
    perform(job, finished.root, tmp_path / "empty cache")

    assert not (tmp_path / "empty cache").exists()


def test_stage_leased_by_another_process_is_skipped(plan: Plan, cache: Path, tmp_path: Path) -> None:
    job = chain(plan, "none")[0]
    with lease(Store(tmp_path).work(job.digest)), pytest.raises(LeaseHeld):
        perform(job, tmp_path, cache)

    assert not Store(tmp_path).is_finished(job.digest)


def test_damaged_parent_is_named(finished: Store, plan: Plan, cache: Path, tmp_path: Path) -> None:
    classify, segment = chain(plan, "one_step")
    folder = tmp_path / "stages" / classify.digest
    folder.mkdir(parents=True)
    for path in finished.stage(classify.digest).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / WEIGHTS).write_bytes(b"short")

    with pytest.raises(DamagedStageError) as raised:
        perform(segment, tmp_path, cache)
    assert raised.value.digest == classify.digest


def test_diverged_stage_is_not_published(cache: Path, tmp_path: Path) -> None:
    change = {"stages.segment.optimizer": {"name": "sgd", "lr": 1e30}}
    job = chain(planned(tiny(SMALL | change), cache), "none")[0]

    with pytest.raises(Diverged):
        perform(job, tmp_path, cache)
    assert Store(tmp_path).finished() == frozenset()


def test_data_that_changed_after_planning_is_refused(cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "own"
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    generator = np.random.default_rng(3)
    for number in range(8):
        image = generator.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray((image > 128).astype(np.uint8)).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("bright\n")
    changes = {"data.hospital": {"source": "folder", "root": str(root)}, "pathways": {"none": ["segment"]}}
    plan = planned(tiny(SMALL | changes), cache)
    job = chain(plan, "none")[0]
    view = plan.views["hospital"]
    read = view.index.ids[view.stage_rows(job.node.selection).train[0]]
    Image.fromarray(np.full((40, 40), 7, dtype=np.uint8)).save(root / "images" / f"{read}.png")

    with pytest.raises(DataChanged, match="run the study again"):
        perform(job, tmp_path / "storage", cache)
    assert Store(tmp_path / "storage").finished() == frozenset()


def test_a_stage_from_a_checkpoint_records_the_rules_and_the_omitted_tensors(
    finished: Store, plan: Plan, cache: Path, tmp_path: Path
) -> None:
    encoder = {
        name.removeprefix("encoder."): tensor
        for name, tensor in load_file(finished.weights(chain(plan, "one_step")[0].digest)).items()
        if name.startswith("encoder.")
    }
    query = {f"module.encoder_q.{name}": tensor for name, tensor in encoder.items()}
    file = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": query | {"module.queue": torch.zeros(2)}, "args": Namespace(lr=0.1)}, file)
    changed = planned(tiny(SMALL | {"compare.initial_weights": [{"file": str(file)}]}), cache)
    job = chain(changed, "none")[0]
    perform(job, tmp_path / "storage", cache)

    transfer = json.loads((Store(tmp_path / "storage").stage(job.digest) / "transfer.json").read_text())
    assert transfer["rules"] == ["torch file with the tensors in `state_dict`", "prefix `module.encoder_q.` removed"]
    assert sorted(transfer["carried"]) == sorted(f"encoder.{name}" for name in encoder)
    assert (transfer["new"], transfer["left_behind"]) == ([], ["module.queue"])


def test_weights_file_that_changed_after_planning_is_refused(
    finished: Store, plan: Plan, cache: Path, tmp_path: Path
) -> None:
    file, storage = tmp_path / "encoder.safetensors", tmp_path / "storage"
    storage.mkdir()
    shutil.copyfile(finished.weights(chain(plan, "one_step")[0].digest), file)
    changed = planned(tiny(SMALL | {"compare.initial_weights": [{"file": str(file)}]}), cache)
    check, job = node_check(changed, Store(storage), cache), chain(changed, "none")[0]
    assert check() == ""
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file)

    assert check() == f"has another {file} than was planned with"
    with pytest.raises(DataChanged, match=r"encoder\.safetensors is not what was planned with; allowed: "):
        perform(job, storage, cache)
    assert Store(storage).finished() == frozenset()
    file.unlink()
    assert check() == f"cannot read {file}: No such file or directory"


def test_columns_that_only_later_epochs_have_are_kept() -> None:
    history = [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25, "train/unlabelled_loss": 1.5}]
    assert _history_table(history).to_pydict() == {
        "epoch": [1, 2], "train/loss": [0.5, 0.25], "train/unlabelled_loss": [None, 1.5],
    }  # fmt: skip
