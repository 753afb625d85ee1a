"""Checks of the teachers of feature distillation."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.tasks.base import Outputs
from models.tasks.feature_distillation import FeatureDistillation
from study.errors import ConfigError
from study.monitoring.plan_summary import summary, summary_text
from study.planning.checks.teacher_checks import teacher_files
from study.planning.pending import pending_stages
from study.planning.pretrained import pretrained_weights
from study.store.store import Store
from tests.support.documents import Document, base, planned

VIT = "tu-vit_tiny_patch16_224"


def document(**teacher: object) -> Document:
    stage = {"task": "feature_distillation", "data": "clinic", "epochs": 1, "teacher": teacher}
    return base({"stages.distil": stage, "pathways": {"none": ["segment"], "distilled": ["distil", "segment"]}})


def encoder(backbone: str) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    settings = FeatureDistillationSettings(teacher=TeacherNetworkSettings(backbone=backbone))
    teacher = FeatureDistillation(settings, Outputs(names=("grey",))).teacher
    return {name: tensor.numpy() for name, tensor in teacher.encoder.state_dict().items()}


@pytest.mark.parametrize(
    ("teacher", "line"),
    [
        (
            {"backbone": "own", "initial_weights": "random"},
            "stages.distil.teacher.backbone: is own; allowed: a named backbone such as tu-vit_small_patch14_dinov2; "
            "name one",
        ),
        (
            {"backbone": "resnet5", "initial_weights": "random"},
            "stages.distil.teacher.backbone: backbone is resnet5; allowed: ",
        ),
        (
            {"backbone": VIT, "initial_weights": "lvd142m"},
            f"stages.distil.teacher.initial_weights: initial_weights of {VIT} is lvd142m; allowed: random, imagenet, ",
        ),
        (
            {"backbone": "tu-beit_base_patch16_224", "initial_weights": "random"},
            "stages.distil.teacher.size: is 64 for tu-beit_base_patch16_224; allowed: 224; set teacher.size",
        ),
        (
            {"backbone": VIT, "initial_weights": "random", "size": 50},
            f"stages.distil.teacher.size: is 50 for {VIT}; allowed: multiples of 16 or of 32 from 32 on; set teacher.",
        ),
        (
            {"backbone": VIT, "initial_weights": {"file": "/nowhere/teacher.safetensors"}},
            "stages.distil.teacher.initial_weights.file: /nowhere/teacher.safetensors cannot be read (no such file); ",
        ),
    ],
)
def test_missing_and_unsuitable_teachers_are_refused(teacher: Document, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        planned(document(**teacher), tmp_path)
    (message,) = [f"{problem.path}: {problem.message}" for problem in refused.value.problems]
    assert message.startswith(line)


def test_the_file_of_a_teacher_must_match_its_backbone(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    save_file(encoder("tu-test_vit"), file)
    weights = {"file": str(file)}
    assert planned(document(backbone="tu-test_vit", initial_weights=weights), tmp_path / "cache").files.keys() == {file}
    with pytest.raises(ConfigError, match="does not fit the encoder tu-test_vit2 with 1 channel"):
        planned(document(backbone="tu-test_vit2", initial_weights=weights), tmp_path / "cache")


def test_a_file_without_the_final_normalisation_of_a_teacher_is_refused_unless_the_study_allows_it(
    tmp_path: Path,
) -> None:
    file, tensors = tmp_path / "teacher.safetensors", encoder("tu-test_vit")
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith("model.norm.")}, file)
    with pytest.raises(ConfigError, match=r"missing \(model\.norm\.weight \(64,\), model\.norm\.bias"):
        planned(document(backbone="tu-test_vit", initial_weights={"file": str(file)}), tmp_path / "cache")
    weights = {"file": str(file), "allow": ["model.norm.*"]}
    assert planned(document(backbone="tu-test_vit", initial_weights=weights), tmp_path / "cache").files.keys() == {file}


def test_published_weights_of_a_teacher_are_among_those_that_a_run_fetches(tmp_path: Path) -> None:
    plan, store = planned(document(backbone=VIT, initial_weights="imagenet"), tmp_path), Store(tmp_path / "runs")
    assert pretrained_weights(plan, pending_stages(plan, store), store) == [(VIT, "imagenet")]


def test_a_file_of_a_teacher_is_checked_once_for_all_backbones_of_students(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    save_file(encoder("tu-test_vit"), file)
    distilled = document(backbone="tu-test_vit", initial_weights={"file": str(file)})
    distilled["compare"]["backbone"] = ["tu-lcnet_050", "resnet18"]
    (use,) = teacher_files(planned(distilled, tmp_path / "cache").arms)
    assert [network.backbone for network in use.networks] == ["tu-test_vit"]


def test_the_remedy_for_a_teacher_does_not_mention_combinations(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    save_file({"x": np.zeros(1, dtype=np.float32)}, file)
    with pytest.raises(ConfigError, match="does not fit the encoder") as refused:
        planned(document(backbone="tu-test_vit", initial_weights={"file": str(file)}), tmp_path / "cache")
    assert "combination" not in str(refused.value)


def test_a_plan_reports_how_the_file_of_a_teacher_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "teacher.safetensors"
    save_file(encoder("tu-test_vit"), file)
    plan = planned(document(backbone="tu-test_vit", initial_weights={"file": str(file)}), tmp_path / "cache")
    (line,) = plan.file_rules["teacher.safetensors"]
    assert line.startswith("tu-test_vit: safetensors file; ")
    text = summary_text(summary(plan, Store(tmp_path / "runs"), tmp_path / "cache"))
    assert f"weights      teacher.safetensors for {line}" in text.splitlines()


def test_a_search_cannot_propose_an_image_size_that_a_teacher_refuses(tmp_path: Path) -> None:
    distilled = document(backbone=VIT, initial_weights="random")
    distilled["search"] = {"trials": 2, "reserve": 0.4, "space": {"distil.image.size": {"choices": [32, 40]}}}
    with pytest.raises(ConfigError) as refused:
        planned(distilled, tmp_path)
    messages = {problem.path: problem.message for problem in refused.value.problems}
    assert messages["search.space.distil.image.size"].startswith(
        f"value 40 does not fit: stages.distil.teacher.size is 40 for {VIT}; allowed: multiples of 16"
    )
