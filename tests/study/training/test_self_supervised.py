"""Self-supervised stages on the images of the target: their data, the weights they pass on, and their scores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.tasks.base import Outputs
from models.tasks.feature_distillation import FeatureDistillation
from study.analysis.tables import write_outcome
from study.cli.ending import outcome_lines
from study.config.schema import Checkpoint
from study.execution.study_folder import write_study
from study.monitoring.stage_records import stage_warnings
from study.planning.graph import Plan
from study.report.page import ReportOptions, write_report
from study.run import StudyOutcome
from study.store.store import Store
from study.training.job import RuntimeContext, stage_job
from study.training.loader import WorkerContext
from study.training.train_stage import DataChanged, run_stage
from tests.support.finished import CLASSES, perform_all, write_pictures
from tests.support.tiny import planned, tiny

STAGES: dict[str, dict[str, Any]] = {
    "masked_reconstruction": {},
    "masked_reconstruction, carried decoder": {"decoder": "architecture"},
    "masked_reconstruction, mae": {"method": "mae", "decoder_width": 32, "decoder_depth": 1},
    "contrastive": {"hidden": 16, "projection": 8},
    "contrastive, queue": {"hidden": 16, "projection": 8, "queue": 16},
    "self_distillation": {"hidden": 16, "projection": 8, "local_views": 2, "local_size": 1.0},
    "feature_distillation": {"teacher": {"backbone": "tu-test_vit", "initial_weights": "random", "size": 64}},
}


def document(name: str, root: Path) -> dict[str, Any]:
    """A study of two folds, half of whose masks are hidden, with pretraining on the target's own images."""
    settings = STAGES[name]
    carry = "encoder+decoder" if settings.get("decoder") == "architecture" else "encoder"
    transformer = settings.get("method") == "mae"
    return tiny({
        "data": {"hospital": {"source": "folder", "root": str(root), "classes": CLASSES}},
        "validation": {"min_cases": 1},
        "keep": {"weights": "all"},
        "stages": {
            "pretrain": {"task": name.partition(",")[0], "data": "hospital", "epochs": 2, "batch_size": 4, **settings},
            "segment": {"task": "segmentation", "data": "hospital", "steps": 2, "batch_size": 4},
        },
        "pathways": {"none": ["segment"], "pretrained": ["pretrain", {"stage": "segment", "carry": carry}]},
        "compare.labelled_fraction": [0.5],
        "compare.backbone": ["tu-test_vit" if transformer else "tu-lcnet_050"],
        "compare.architecture": ["linear" if transformer else "unet"],
    })  # fmt: skip


def train(plan: Plan, chain: Sequence[str], store: Store, cache: Path) -> None:
    runtime = RuntimeContext(storage=store.root, cache=cache, cpus=1, checkpoint=Checkpoint())
    for digest in chain:
        run_stage(stage_job(plan, plan.nodes[digest]), runtime, WorkerContext(report=lambda _: None))


@pytest.mark.parametrize("name", STAGES)
def test_test_images_and_hidden_masks_do_not_change_the_weights(name: str, tmp_path: Path) -> None:
    weights = []
    for place in ("clean", "garbage"):
        root = tmp_path / place
        write_pictures(root / "data", overlapping=False)
        plan = planned(document(name, root / "data"), tmp_path / "cache")
        replicate = next(
            candidate for candidate in plan.replicates if len(candidate.chain) == 2 and candidate.fold == 0
        )
        view, split = plan.views["hospital"], plan.split(replicate)
        if place == "garbage":
            assert split.test
            assert split.unlabelled
            draw = np.random.default_rng(0)
            for folder, rows in (("images", split.test), ("masks", (*split.test, *split.unlabelled))):
                for row in rows:
                    file = root / "data" / folder / f"{view.index.ids[row]}.png"
                    shape = np.asarray(Image.open(file)).shape
                    top = 255 if folder == "images" else len(CLASSES)
                    Image.fromarray(draw.integers(0, top + 1, shape, dtype=np.uint8)).save(file)
            plan = planned(document(name, root / "data"), tmp_path / "cache")
            replicate = next(
                candidate for candidate in plan.replicates if len(candidate.chain) == 2 and candidate.fold == 0
            )
        store = Store(root / "runs")
        train(plan, replicate.chain, store, tmp_path / "cache")
        weights.append({digest: load_file(store.weights(digest)) for digest in replicate.chain})
    clean, garbage = weights
    assert clean.keys() == garbage.keys()
    for digest, tensors in clean.items():
        assert all(torch.equal(tensor, garbage[digest][key]) for key, tensor in tensors.items())


@pytest.mark.parametrize("name", STAGES)
def test_the_next_stage_starts_from_the_trained_parts(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan, store = planned(document(name, tmp_path / "data"), tmp_path / "cache"), Store(tmp_path / "runs")
    pretrain, segment = next(replicate.chain for replicate in plan.replicates if len(replicate.chain) == 2)
    train(plan, (pretrain, segment), store, tmp_path / "cache")
    before = load_file(store.weights(pretrain))
    parts = tuple(f"{part}." for part in plan.nodes[pretrain].step.settings.trains)
    transfer = json.loads((store.stage(segment) / "transfer.json").read_text())
    assert {key for key in before if key.startswith(parts)} == set(transfer["carried"])
    history = pq.read_table(store.stage(pretrain) / "history.parquet").to_pylist()
    assert len(history) == 2
    assert {"train/loss", "val/loss"} <= history[-1].keys()


def distillation(root: Path, initial_weights: object) -> tuple[Plan, str]:
    """A study with a teacher, and the digest of its distillation."""
    changed = document("feature_distillation", root / "data")
    changed["stages"]["pretrain"]["teacher"]["initial_weights"] = initial_weights
    plan = planned(changed, root / "cache")
    return plan, next(digest for digest, node in plan.nodes.items() if node.step.stage == "pretrain")


def save_teacher(file: Path, seed: int) -> None:
    settings = FeatureDistillationSettings(teacher=TeacherNetworkSettings(backbone="tu-test_vit"))
    state = FeatureDistillation(settings, Outputs(names=("grey",))).teacher.encoder.state_dict()
    generator = torch.Generator().manual_seed(seed)
    save_file({name: 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}, file)


def test_a_teacher_from_a_file_has_its_weights_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    file, store = tmp_path / "teacher.safetensors", Store(tmp_path / "runs")
    save_teacher(file, seed=1)
    plan, digest = distillation(tmp_path, {"file": str(file)})
    random_plan, random_digest = distillation(tmp_path, "random")
    save_teacher(file, seed=2)
    with pytest.raises(DataChanged, match=r"the content of .*teacher\.safetensors is not what was planned with"):
        train(plan, [digest], store, tmp_path / "cache")
    save_teacher(file, seed=1)
    train(plan, [digest], store, tmp_path / "cache")
    train(random_plan, [random_digest], store, tmp_path / "cache")
    transfer = json.loads(store.file(digest, "transfer.json").read_text())
    assert transfer["from"] == "random"
    assert transfer["teacher"]["from"] == str(file)
    assert transfer["teacher"]["rules"] == ["safetensors file"]
    assert {f"encoder.{name}" for name in load_file(file)} == set(transfer["teacher"]["carried"])
    weights, random_weights = (load_file(store.weights(stage)) for stage in (digest, random_digest))
    assert weights.keys() == random_weights.keys()
    assert not torch.equal(weights["head.weight"], random_weights["head.weight"])


def test_the_weights_of_a_stage_exclude_the_teacher(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan, digest = distillation(tmp_path, "random")
    store = Store(tmp_path / "runs")
    train(plan, [digest], store, tmp_path / "cache")
    assert {name.partition(".")[0] for name in load_file(store.weights(digest))} == {"encoder", "head"}
    row = pq.read_table(store.stage(digest) / "history.parquet").to_pylist()[-1]
    assert {"val/cosine", "val/relative_std"} <= row.keys()


@pytest.mark.parametrize("name", ["contrastive", "contrastive, queue", "self_distillation"])
def test_patches_are_supported(name: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    study = document(name, tmp_path / "data")
    study["stages"]["pretrain"] |= {"image": {"size": 32, "fit": "patch"}, "patch": {"per_image": 2}}
    plan, store = planned(study, tmp_path / "cache"), Store(tmp_path / "runs")
    pretrain = next(replicate.chain[0] for replicate in plan.replicates if len(replicate.chain) == 2)
    train(plan, [pretrain], store, tmp_path / "cache")
    rows = pq.read_table(store.stage(pretrain) / "history.parquet").to_pylist()
    assert all(np.isfinite(row["val/loss"]) and np.isfinite(row["train/loss"]) for row in rows)


def test_a_prediction_close_to_a_constant_is_a_warning_of_the_stage(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan, store = (
        planned(document("masked_reconstruction", tmp_path / "data"), tmp_path / "cache"),
        Store(tmp_path / "runs"),
    )
    pretrain = next(replicate.chain[0] for replicate in plan.replicates if len(replicate.chain) == 2)
    train(plan, [pretrain], store, tmp_path / "cache")
    (message,) = stage_warnings(store, {pretrain: plan.nodes[pretrain].step.settings.task})[pretrain]
    assert message.startswith("the prediction of hidden pixels is hardly better than their mean: r2 is ")


def test_collapsed_embeddings_are_reported_at_the_end_of_a_run_and_in_the_report(tmp_path: Path) -> None:
    data, cache, store = tmp_path / "data", tmp_path / "cache", Store(tmp_path / "runs")
    write_pictures(data, overlapping=False)
    for number in range(8):  # images that differ in one pixel, so that their embeddings are equal
        pixels = np.full((32, 32), 100, np.uint8)
        pixels[0, number] = 110
        (tmp_path / "equal" / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "equal" / "images" / f"e{number}.png")
    changed = document("contrastive", data)
    changed["stages"]["pretrain"] |= {"data": "equal", "augment": {"preset": None, "noise": 0.001}}
    changed["data"]["equal"] = {"source": "folder", "root": str(tmp_path / "equal")}
    changed["leaks"] = "report"
    plan = planned(changed, cache)
    perform_all(plan, store, cache)
    (digest,) = (digest for digest, node in plan.nodes.items() if node.step.stage == "pretrain")
    (message,) = store.record(digest)["warnings"]
    assert "(collapse): embedding_std is 0" in message
    assert all(store.record(other)["warnings"] == [] for other in plan.nodes if other != digest)

    write_study(plan, changed, store, print, None)
    comparisons = write_outcome(plan, store)
    lines = list(outcome_lines(StudyOutcome(plan=plan, comparisons=comparisons), store.root))
    assert f"warning: pretrain {digest[:8]}: {message}" in lines
    page = tmp_path / "page.html"
    write_report(store.root, "tiny", cache=cache, output=page, options=ReportOptions(images=False))
    assert "the embeddings of all validation images are almost equal (collapse)" in page.read_text(encoding="utf-8")
