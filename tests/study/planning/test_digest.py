"""Digests: what must change the name of a training, and what must not."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from segmentation_models_pytorch.encoders import get_encoder

import study.planning.stage_identity
from datasets.augment_settings import PRESETS, AugmentSettings
from models.settings import AdversaryBlock
from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.task_settings.masking import MaskedReconstructionSettings
from models.task_settings.pseudo_labels import PseudoLabelBlock
from models.task_settings.views import ContrastiveSettings, SelfDistillationSettings
from models.task_settings.weak_labels import WeakLabelBlock
from models.tasks.base import Outputs
from models.tasks.feature_distillation import FeatureDistillation
from models.versions import VERSIONS as MODELS
from study.config.stages import ConsistencyViews, SegmentationStage, Teacher, WeightAverage
from study.planning.digest import combined, digest, without_defaults
from study.planning.graph import Plan
from study.planning.stage_identity import ADDED_SETTINGS, stage_identity
from tests.support.documents import Document, base, by_stage, planned
from tests.support.folder import write_folder
from tests.support.pictures import picture, save


def target_digests(plan: Plan) -> frozenset[str]:
    return by_stage(plan)["segment"]


OTHER: dict[str, Any] = {
    "task": None,  # a stage of another task has other settings
    "recipe": "strong",
    "data": None,  # below: the content counts, not the name
    "target": None,  # below: boxes under another stage
    "epochs": 2,
    "steps": None,  # below: instead of epochs
    "batch_size": 4,
    "accumulate": 2,
    "optimizer": {"lr": 0.01},
    "schedule": {"name": "cosine"},
    "clip_norm": 1.0,
    "early_stopping": {"patience": 3},
    "average": {"start": 0.5, "lr": 0.1},
    "balance": {"images": 30},
    "l2": 0.01,
    "augment": {"flip": 0.5},
    "patch": None,  # below: under fit: patch
    "adapt": "norm",
    "precision": "bf16",
    "seed": 7,
    "architecture": "fpn",
    "backbone": "resnet34",
    "image": {"fit": "letterbox"},
    "prepare": {"gamma": 1.5},
    "upsampling": "bilinear",
    "loss": {"dice": 2.0},
    "class_weights": {"heart": 2.0},
    "label_smoothing": 0.1,
    "deep_supervision": True,
    "rest": "class",
    "weak": None,  # below: only with weak labels
    "threshold": None,  # below: a setting of evaluation
    "class_threshold": None,  # of evaluation too
    "tta": None,
    "postprocess": None,
}
"""A changed value of every setting a segmentation stage has."""


def test_every_setting_of_a_stage_is_looked_at_here() -> None:
    assert OTHER.keys() == SegmentationStage.model_fields.keys()


@pytest.mark.parametrize("key", [key for key, value in OTHER.items() if value is not None])
def test_each_setting_of_a_stage_changes_it_and_nothing_before_it(key: str, tmp_path: Path) -> None:
    document = base({"pathways": {"none": ["segment"], "boxes": ["boxes", "segment"]}})
    changes: Document = {f"stages.segment.{key}": OTHER[key]}
    if key == "backbone":
        changes["stages.boxes.backbone"] = OTHER[key]  # or the weights would not fit
    before = by_stage(planned(document, tmp_path))
    after = by_stage(planned(base({**document, **changes}), tmp_path))
    assert before["segment"].isdisjoint(after["segment"])
    assert (before["boxes"] == after["boxes"]) == (key != "backbone")


ADVERSARIAL: dict[str, Any] = {
    "unlabelled": None,  # the fingerprint of the data contains the images
    "discriminator": {"name": "patchgan", "receptive_field": 16},
    "optimizer": {"lr": 0.01},
    "lambda1": 0.1,
    "lambda2": 0.1,
    "lambda_semi": 0.1,
    "t_semi": 0.5,
    "semi_start": 1,
    "unlabelled_start": 2,
    "freeze_discriminator": True,
    "unlabelled_only": True,
}
"""A changed value of every setting of adversarial training."""
PHASES = {"unlabelled_start": 1, "freeze_discriminator": True}
"""Values that the phases of adversarial training need."""


def adversarial(block: Document, place: Path) -> frozenset[str]:
    stage = {"task": "adversarial", "data": "hospital", "steps": 4, "adversarial": block}
    return target_digests(planned(base({"stages.segment": stage, "pathways": {"none": ["segment"]}}), place))


def test_every_setting_of_adversarial_training_is_listed() -> None:
    assert ADVERSARIAL.keys() == AdversaryBlock.model_fields.keys()


@pytest.mark.parametrize("key", [key for key, value in ADVERSARIAL.items() if value is not None])
def test_each_setting_of_adversarial_training_changes_its_stage(key: str, tmp_path: Path) -> None:
    needed = {name: value for name, value in PHASES.items() if name != key and key in ("unlabelled_only", *PHASES)}
    if key == "unlabelled_start":
        needed = {}
    assert adversarial(needed, tmp_path).isdisjoint(adversarial({**needed, key: ADVERSARIAL[key]}, tmp_path))


CONSISTENCY: dict[str, tuple[Document, Any]] = {
    "unlabelled": ({}, None),  # the fingerprint of the data contains the images
    "method": ({}, "fixmatch"),
    "weight": ({}, 0.5),
    "ramp_up": ({}, 0.5),
    "cutmix": ({}, 0.0),
    "momentum": ({}, 0.9),
    "confidence": ({"method": "fixmatch"}, 0.9),
    "feature_dropout": ({"method": "unimatch"}, 0.3),
    "strong": ({}, {"noise": 0.1}),
}
"""A changed value of every setting of consistency, and the settings that it needs."""


def consistent(block: Document, place: Path) -> frozenset[str]:
    stage = {"task": "consistency", "data": "hospital", "steps": 4, "consistency": block}
    return target_digests(planned(base({"stages.segment": stage, "pathways": {"none": ["segment"]}}), place))


def test_every_setting_of_consistency_is_listed() -> None:
    assert CONSISTENCY.keys() == ConsistencyViews.model_fields.keys()


@pytest.mark.parametrize("key", [key for key, (_, value) in CONSISTENCY.items() if value is not None])
def test_each_setting_of_consistency_changes_its_stage(key: str, tmp_path: Path) -> None:
    needed, value = CONSISTENCY[key]
    assert consistent(needed, tmp_path).isdisjoint(consistent({**needed, key: value}, tmp_path))


def test_the_preset_of_strong_views_and_its_values_written_out_are_the_same_stage(tmp_path: Path) -> None:
    default = consistent({}, tmp_path)
    assert default == consistent({"strong": {"preset": None, **PRESETS["photometric"]}}, tmp_path)
    assert default.isdisjoint(consistent({"strong": {"preset": None}}, tmp_path))


WEAK: dict[str, tuple[str, Any]] = {
    "weight": ("scribble", 0.5),
    "ramp_up": ("scribble", 0.5),
    "points": ("points", 2),
    "radius": ("points", 3.0),
    "size_prior": ("points", False),
}
"""A kind of weak labels that uses a setting, and a changed value of it."""


def weakly(block: Document, place: Path, *rests: str) -> dict[str, frozenset[str]]:
    """Return the digests of the stages by the kind of weak labels."""
    changes = {"compare.rest": rests, "stages.segment.weak": block, "pathways": {"none": ["segment"]}}
    plan = planned(base(changes | {"compare.baseline": {}}), place)
    return {
        rest: frozenset(
            replicate.chain[-1] for replicate in plan.replicates if plan.arms[replicate.arm].factors["rest"] == rest
        )
        for rest in rests
    }


def test_every_setting_of_weak_labels_is_listed() -> None:
    assert WEAK.keys() == WeakLabelBlock.model_fields.keys()


@pytest.mark.parametrize("key", WEAK)
def test_each_setting_of_weak_labels_changes_stages_that_use_it_alone(key: str, tmp_path: Path) -> None:
    rest, value = WEAK[key]
    rests = dict.fromkeys(("none", "scribble", rest))
    before, after = (weakly(block, tmp_path, *rests) for block in ({}, {key: value}))
    assert before[rest].isdisjoint(after[rest])
    assert before["none"] == after["none"]
    if key not in ("weight", "ramp_up"):
        assert before["scribble"] == after["scribble"]


PSEUDO: Document = {
    "unlabelled": None,  # the fingerprint of the data contains the images
    "labels": "soft",
    "confidence": 0.8,
    "ensemble": 2,
    "weight": 0.5,
    "ramp_up": 0.5,
}
"""A changed value of every setting of pseudo-labels."""


def self_trained(block: Document, place: Path) -> frozenset[str]:
    stage = {"data": "hospital", "steps": 4}
    stages = {"teacher": {"task": "segmentation", **stage},
              "segment": {"task": "pseudo_labels", **stage, "pseudo_labels": block}}  # fmt: skip
    changes = {"stages": stages, "pathways": {"none": ["teacher", "segment"]}, "compare.labelled_fraction": [0.5]}
    return target_digests(planned(base(changes), place))


def test_every_setting_of_pseudo_labels_is_listed() -> None:
    assert PSEUDO.keys() == PseudoLabelBlock.model_fields.keys()


@pytest.mark.parametrize("key", [key for key, value in PSEUDO.items() if value is not None])
def test_each_setting_of_pseudo_labels_changes_its_stage(key: str, tmp_path: Path) -> None:
    assert self_trained({}, tmp_path).isdisjoint(self_trained({key: PSEUDO[key]}, tmp_path))


MASKED: dict[str, tuple[Document, Any]] = {
    "method": ({"backbone": "tu-vit_tiny_patch16_224"}, "mae"),
    "mask_ratio": ({}, 0.5),
    "mask_size": ({}, 16),
    "loss": ({}, {"mse": 1.0}),
    "norm_pixels": ({"method": "mae", "backbone": "tu-vit_tiny_patch16_224"}, False),
    "decoder": ({}, "architecture"),
    "decoder_width": ({"method": "mae", "backbone": "tu-vit_tiny_patch16_224"}, 64),
    "decoder_depth": ({"method": "mae", "backbone": "tu-vit_tiny_patch16_224"}, 2),
    "upsampling": ({"decoder": "architecture"}, "bilinear"),
}
"""A changed value of every setting of masked reconstruction, and the settings that it needs."""


def test_every_setting_of_masked_reconstruction_is_listed() -> None:
    assert MASKED.keys() == MaskedReconstructionSettings.model_fields.keys() - {"task"}


@pytest.mark.parametrize("key", MASKED)
def test_each_setting_of_masked_reconstruction_changes_its_stage(key: str, tmp_path: Path) -> None:
    needed, value = MASKED[key]
    stage = {"task": "masked_reconstruction", "data": "clinic", "epochs": 1} | needed
    backbone = {"compare.backbone": [needed["backbone"]]} if "backbone" in needed else {}
    before, after = (
        by_stage(
            planned(
                base({**backbone, "stages.mask": stage | change, "pathways": {"none": ["mask", "segment"]}}), tmp_path
            )
        )
        for change in ({}, {key: value})
    )
    assert before["mask"].isdisjoint(after["mask"])


TEACHER = {"backbone": "tu-test_vit", "initial_weights": "random"}
TEACHERS: dict[str, Document] = {
    "backbone": {"backbone": "tu-test_vit2"},
    "size": {"size": 96},
    "initial_weights": {"initial_weights": "imagenet"},
}
"""A changed value of every setting of a teacher."""


def distilled(teacher: Document, place: Path) -> frozenset[str]:
    stage = {"task": "feature_distillation", "data": "clinic", "epochs": 1, "teacher": teacher}
    document = base({"stages.distil": stage, "pathways": {"none": ["distil", "segment"]}})
    return by_stage(planned(document, place))["distil"]


def test_every_setting_of_a_teacher_is_listed() -> None:
    assert TEACHERS.keys() == Teacher.model_fields.keys()


@pytest.mark.parametrize("key", TEACHERS)
def test_each_setting_of_a_teacher_changes_its_stage(key: str, tmp_path: Path) -> None:
    assert distilled(TEACHER, tmp_path).isdisjoint(distilled(TEACHER | TEACHERS[key], tmp_path))


def test_the_file_of_a_teacher_counts_by_content(tmp_path: Path) -> None:
    teacher = FeatureDistillation(
        FeatureDistillationSettings(teacher=TeacherNetworkSettings(backbone="tu-test_vit")), Outputs(names=("grey",))
    ).teacher.encoder.state_dict()
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    for file, value in ((first, 1.0), (same, 1.0), (other, 2.0)):
        save_file({name: np.full_like(tensor.numpy(), value) for name, tensor in teacher.items()}, file)
    digests = [distilled(TEACHER | {"initial_weights": {"file": str(file)}}, tmp_path) for file in (first, same, other)]
    assert digests[0] == digests[1]
    assert digests[0].isdisjoint(digests[2])


VIEW_TASKS: dict[str, dict[str, Any]] = {
    "contrastive": {"temperature": 0.5, "projection": 64, "hidden": 64, "queue": 64, "momentum": 0.9},
    "self_distillation": {"projection": 64, "hidden": 64, "momentum": 0.9, "local_views": 2, "local_size": 0.75,
                          "local_crop": [0.4, 0.8]},
}  # fmt: skip
"""A changed value of every setting of tasks that compare views, by task."""
NEEDED: dict[tuple[str, str], Document] = {
    ("contrastive", "momentum"): {"queue": 32},
    ("self_distillation", "local_size"): {"local_views": 1},
    ("self_distillation", "local_crop"): {"local_views": 1},
}
"""Settings that others need, by task and setting."""


def views(task: str, settings: Document, place: Path) -> frozenset[str]:
    stage = {"task": task, "data": "clinic", "steps": 4, **settings}
    return by_stage(planned(base({"stages.view": stage, "pathways": {"none": ["view", "segment"]}}), place))["view"]


def test_every_setting_of_tasks_that_compare_views_is_listed() -> None:
    models = {"contrastive": ContrastiveSettings, "self_distillation": SelfDistillationSettings}
    assert {task: values.keys() for task, values in VIEW_TASKS.items()} == {
        task: model.model_fields.keys() - {"task"} for task, model in models.items()
    }


@pytest.mark.parametrize(("task", "key"), [(task, key) for task, values in VIEW_TASKS.items() for key in values])
def test_each_setting_of_tasks_that_compare_views_changes_their_stage(task: str, key: str, tmp_path: Path) -> None:
    needed = NEEDED.get((task, key), {})
    changed = views(task, {**needed, key: VIEW_TASKS[task][key]}, tmp_path)
    assert views(task, needed, tmp_path).isdisjoint(changed)


def test_the_default_preset_of_views_and_its_values_written_out_are_the_same_stage(tmp_path: Path) -> None:
    default = views("contrastive", {}, tmp_path)
    assert default == views("contrastive", {"augment": {"preset": None, **PRESETS["views"]}}, tmp_path)
    assert default == views("contrastive", {"augment": {"preset": "views"}}, tmp_path)
    assert default.isdisjoint(views("contrastive", {"augment": {"flip": 0.5}}, tmp_path))


AVERAGED = {"stages.segment.average": {"start": 0.5}}


def test_the_learning_rate_of_averaging_changes_a_stage_only_if_it_is_set(tmp_path: Path) -> None:
    plain, at_default, constant = (
        target_digests(planned(base({**AVERAGED, **changes}), tmp_path))
        for changes in ({}, {"stages.segment.average.lr": None}, {"stages.segment.average.lr": 0.1})
    )
    assert plain == at_default
    assert plain.isdisjoint(constant)


def test_added_settings_have_the_defaults_that_leave_digests_unchanged() -> None:
    values = {
        f"settings.{part}.{name}": field.default
        for part, model in (("adversarial", AdversaryBlock), ("augment", AugmentSettings), ("average", WeightAverage))
        for name, field in model.model_fields.items()
    }
    added = {path: default for path, default in ADDED_SETTINGS.items() if path in values}
    assert len(added) == 17
    assert added == {path: values[path] for path in added}


AUGMENT: dict[str, Any] = {
    "preset": None,  # below: its values count
    "flip": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.5, "rotate": 10, "scale": 0.1, "shift": 0.1, "shear": 5,
    "crop": 0.1, "elastic": 0.1, "border": "reflect", "brightness": 0.1, "contrast": 0.1, "gamma": 0.1, "hue": 0.1,
    "saturation": 0.1, "blur": 1, "sharpness": 1, "low_resolution": 2, "noise": 0.1, "dropout": 0.1, "cutmix": 0.5,
    "copy_paste": 0.5,
}  # fmt: skip
"""A changed value of every setting of augmentation."""


def augmented(settings: Document, place: Path) -> frozenset[str]:
    return target_digests(planned(base({"stages.segment.augment": settings, "pathways": {"none": ["segment"]}}), place))


def test_every_setting_of_augmentation_is_listed() -> None:
    assert AUGMENT.keys() == AugmentSettings.model_fields.keys()


def test_each_setting_of_augmentation_changes_its_stage(tmp_path: Path) -> None:
    digests = [augmented({key: value}, tmp_path) for key, value in AUGMENT.items() if value is not None]
    assert len(frozenset().union(*digests, augmented({}, tmp_path))) == sum(map(len, digests)) + len(digests[0])


def test_a_preset_and_its_values_written_out_are_the_same_stage(tmp_path: Path) -> None:
    assert augmented({"preset": "light"}, tmp_path) == augmented(dict(PRESETS["light"]), tmp_path)
    rotated = {**PRESETS["strong"], "rotate": 5}
    assert augmented({"preset": "strong", "rotate": 5}, tmp_path) == augmented(rotated, tmp_path)
    assert augmented({"preset": "strong"}, tmp_path).isdisjoint(augmented(rotated, tmp_path))
    assert augmented({"preset": None}, tmp_path) == augmented({}, tmp_path)


def test_presets_are_factors_whole_and_as_a_key(tmp_path: Path) -> None:
    sets = {name: augmented({"preset": name, "flip": 0.5}, tmp_path) for name in PRESETS}
    expected = frozenset().union(*sets.values())
    assert all(sets["light"].isdisjoint(digests) for name, digests in sets.items() if name != "light")
    paths = {"pathways": {"none": ["segment"]}}
    whole = base({**paths, "compare.segment.augment": [{"preset": name, "flip": 0.5} for name in PRESETS]})
    assert target_digests(planned(whole, tmp_path)) == expected
    key = base({**paths, "stages.segment.augment": {"preset": "light", "flip": 0.5},
                "compare.segment.augment.preset": list(PRESETS)})  # fmt: skip
    assert target_digests(planned(key, tmp_path)) == expected


def test_a_new_version_of_elastic_deformation_changes_the_stages_that_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated, elastic = {"rotate": 5}, {"rotate": 5, "elastic": 0.05}
    before = augmented(rotated, tmp_path), augmented(elastic, tmp_path)
    monkeypatch.setattr(study.planning.stage_identity, "ELASTIC", study.planning.stage_identity.ELASTIC + 1)
    assert augmented(rotated, tmp_path) == before[0]
    assert augmented(elastic, tmp_path).isdisjoint(before[1])


ADDED: dict[str, Document] = {
    "vertical flips": {"stages.segment.augment": {"vertical_flip": 0.5}},
    "a smallest crop": {"stages.segment.augment": {"crop": [0.1, 0.4]}},
    "reflected borders": {"stages.segment.augment": {"border": "reflect"}},
    "a rank of adapters": {"stages.segment.adapt": {"name": "lora", "rank": 4}},
    "betas": {"stages.segment.optimizer": {"betas": [0.9, 0.99]}},
    "a rate of the encoder": {"stages.segment.optimizer": {"encoder_lr_factor": 0.1}},
    "rates by layer": {"stages.segment.optimizer": {"layer_decay": 0.7}},
    "a warm-up": {"stages.segment.schedule": {"warmup": 0.1}},
    "another decay of a moving average": {"stages.segment.average": {"name": "ema", "decay": 0.99}},
    "the moving average of rmsprop": {"stages.segment.optimizer": {"name": "rmsprop", "alpha": 0.9}},
}


@pytest.mark.parametrize("changes", ADDED.values(), ids=ADDED)
def test_settings_of_a_later_version_change_it_where_they_differ_from_the_earlier_behaviour(
    changes: Document, tmp_path: Path
) -> None:
    ((path, value),) = changes.items()
    kept = {key: value[key] for key in value if key == "name"}
    before = planned(base({path: kept}), tmp_path)
    assert target_digests(before).isdisjoint(target_digests(planned(base(changes), tmp_path)))


def test_the_kind_of_average_and_balanced_class_weights_change_a_stage(tmp_path: Path) -> None:
    changes: list[Document] = [
        {}, {"stages.segment.average": {"start": 0.75}}, {"stages.segment.average": {"name": "ema"}},
        {"stages.segment.class_weights": "balanced"},
    ]  # fmt: skip
    digests = [target_digests(planned(base(change), tmp_path)) for change in changes]
    for number, one in enumerate(digests):
        assert all(one.isdisjoint(other) for other in digests[:number])


def test_settings_of_a_later_version_written_out_at_their_defaults_change_nothing(tmp_path: Path) -> None:
    changes: Document = {
        "stages.segment.augment": {
            "flip": 0.5,
            "vertical_flip": 0,
            "border": "constant",
            "preset": None,
            "quarter_turns": 0,
            "hue": 0,
            "saturation": 0,
            "blur": 0,
            "sharpness": 0,
            "low_resolution": 0,
            "dropout": 0,
            "cutmix": 0,
            "copy_paste": 0,
        },
        "stages.segment.optimizer": {"name": "rmsprop", "alpha": 0.99},
        "pathways.two_step": ["classify", "boxes", {"stage": "segment", "freeze": ["encoder"], "keep_dropout": False}],
    }
    earlier: Document = {
        "stages.segment.augment": {"flip": 0.5},
        "stages.segment.optimizer": {"name": "rmsprop"},
        "pathways.two_step": ["classify", "boxes", {"stage": "segment", "freeze": ["encoder"]}],
    }
    assert planned(base(earlier), tmp_path).nodes.keys() == planned(base(changes), tmp_path).nodes.keys()


MOVES: dict[str, Document] = {
    "the seed": {"compare.seeds": [1]},
    "the study's image size": {"image.size": 32},
    "steps instead of epochs": {"stages.segment": {"task": "segmentation", "data": "hospital", "steps": 4}},
    "initial weights": {"compare.initial_weights": ["imagenet"]},
    "the order of classes": {"data.hospital.classes": ["heart", "left_lung"]},
    "other images": {"data.hospital.seed": 3},
}


@pytest.mark.parametrize("changes", MOVES.values(), ids=MOVES)
def test_what_a_training_depends_on_changes_it(changes: Document, tmp_path: Path) -> None:
    before, after = planned(base(), tmp_path), planned(base(changes), tmp_path)
    assert target_digests(before).isdisjoint(target_digests(after))


def test_who_validates_changes_a_training(tmp_path: Path) -> None:
    document = {"compare.labelled_fraction": [1.0], "validation": {"min_cases": 1}}
    before = planned(base(document), tmp_path)
    after = planned(base({**document, "data.hospital.split": {"validation": {"share": 0.5}}}), tmp_path)
    nobody = planned(base({**document, "validation": {"min_cases": 5}}), tmp_path)
    assert target_digests(before).isdisjoint(target_digests(after))
    assert target_digests(before).isdisjoint(target_digests(nobody))


def test_settings_of_patches_change_the_stages_that_use_them(tmp_path: Path) -> None:
    patches: Document = {"stages.segment.image": {"fit": "patch"}}
    plans = [
        planned(base({**patches, **changes}), tmp_path)
        for changes in (
            {},
            {"stages.segment.patch": {"per_image": 4}},
            {"stages.segment.patch": {"foreground": 0.5}},
            {"stages.segment.image": {"fit": "patch", "scale": 0.5}},
        )
    ]
    assert len({digest for plan in plans for digest in target_digests(plan)}) == 4 * len(target_digests(plans[0]))


def test_settings_of_patches_do_not_change_stages_of_whole_images(tmp_path: Path) -> None:
    compared: Document = {"compare.segment.image.fit": ["patch", "stretch"]}
    plans = [
        planned(base(compared | changes), tmp_path) for changes in ({}, {"stages.segment.patch": {"per_image": 4}})
    ]
    whole = target_digests(planned(base(), tmp_path))
    assert all(whole < target_digests(plan) for plan in plans)


LINKS: list[Document] = [
    {"stage": "segment", "carry": "encoder+decoder"},
    {"stage": "segment", "freeze": ["encoder"]},
    {"stage": "segment", "freeze": ["encoder.stage1"]},
    {"stage": "segment", "freeze": ["encoder"], "unfreeze_after": 1},
    {"stage": "segment", "freeze": ["encoder"], "keep_dropout": True},
]


def test_each_link_changes_the_stage_it_leads_to_and_not_the_one_before(tmp_path: Path) -> None:
    links = [["boxes", stage] for stage in ("segment", *LINKS)]
    plans = [planned(base({"pathways": {"none": link}}), tmp_path) for link in links]
    assert len({digest for plan in plans for digest in target_digests(plan)}) == 4 * len(plans)
    assert len({by_stage(plan)["boxes"] for plan in plans}) == 1


def test_a_changed_parent_changes_all_that_descends_from_it(tmp_path: Path) -> None:
    chain = {"pathways": {"none": ["classify", "boxes", "segment"]}}
    before = planned(base(chain), tmp_path)
    after = planned(base({**chain, "stages.classify.epochs": 2}), tmp_path)
    assert before.nodes.keys().isdisjoint(after.nodes)


@pytest.mark.parametrize("component", list(MODELS))
def test_a_new_version_of_a_models_component_changes_every_stage(
    component: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(base(), tmp_path)
    monkeypatch.setitem(MODELS, component, MODELS[component] + 1)
    assert before.nodes.keys().isdisjoint(planned(base(), tmp_path).nodes)


def test_a_new_version_of_the_loop_changes_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(base(), tmp_path)
    monkeypatch.setattr(study.planning.stage_identity, "LOOP_VERSION", study.planning.stage_identity.LOOP_VERSION + 1)
    assert before.nodes.keys().isdisjoint(planned(base(), tmp_path).nodes)


SAME: dict[str, Document] = {
    "the study's name": {"name": "other"},
    "resources": {"resources": {"cpus": 2, "gpus": 0}},
    "checkpoints": {"checkpoint": {"epochs": 5, "seconds": 0}},
    "what is kept": {"keep": {"weights": "all"}},
    "the threshold": {"evaluate": {"threshold": 0.4}},
    "a stage's threshold": {"stages.segment.threshold": 0.4},
    "the size of evaluation": {"evaluate": {"size": 128}},
    "classes that are averaged": {"metrics": {"classes": ["heart"], "min_images": 2}},
    "baselines": {"compare.baseline": []},
    "leaks": {"leaks": "report"},
    "how many workers train": {"resources": {"cpus": 2, "workers": 2, "compile": True}},
    "defaults written out": {
        "stages.segment.batch_size": 8,
        "stages.segment.optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 0},
        "stages.segment.precision": "float32",
        "stages.segment.loss": {"dice": 1, "binary_cross_entropy": 1},
        "image": {"size": 64, "channels": 1, "fit": "stretch"},
        "stages.segment.image": {"size": 64},
        "stages.segment.architecture": "unet",
        "data.hospital.split": {"test": "folds", "validation": {"share": 0.2}},
        "pathways.none": [{"stage": "segment", "carry": "encoder", "freeze": []}],
        "compare.initial_weights": ["random"],
        "validation": {"min_cases": 5},
    },
    "the order of lists": {"compare.labelled_fraction": [1.0, 0.5]},
}


@pytest.mark.parametrize("changes", SAME.values(), ids=SAME)
def test_what_no_weight_depends_on_changes_nothing(changes: Document, tmp_path: Path) -> None:
    assert planned(base(), tmp_path).nodes.keys() == planned(base(changes), tmp_path).nodes.keys()


def test_the_order_of_keys_changes_nothing(tmp_path: Path) -> None:
    def backwards(value: object) -> object:
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return value

    turned: Any = backwards(base())
    assert planned(base(), tmp_path).nodes.keys() == planned(turned, tmp_path).nodes.keys()


def test_other_names_for_the_same_work_have_its_digests(tmp_path: Path) -> None:
    named = base()
    renamed = {
        **named,
        "data": {"first": named["data"]["clinic"], "second": named["data"]["hospital"]},
        "stages": {
            "one": {**named["stages"]["classify"], "data": "first"},
            "two": {**named["stages"]["boxes"], "data": "first"},
            "three": {**named["stages"]["segment"], "data": "second"},
        },
        "pathways": {
            "a": ["three"],
            "b": ["one", "three"],
            "c": ["one", "two", {"stage": "three", "carry": "encoder+decoder"}],
        },
        "compare": {**named["compare"], "baseline": {"pathway": "a"}},
    }
    assert planned(named, tmp_path).nodes.keys() == planned(renamed, tmp_path).nodes.keys()


def test_all_images_are_the_same_work_as_a_share_or_a_number(tmp_path: Path) -> None:
    share = planned(base({"compare.labelled_fraction": [1.0]}), tmp_path)
    number = base({"compare.labelled_images": [10]}, without=("compare.labelled_fraction",))
    assert share.nodes.keys() == planned(number, tmp_path).nodes.keys()


def _on_folder(root: Path) -> Document:
    data = {"source": "folder", "root": str(root)}
    return base({
        "data": {"mine": data},
        "stages.classify.data": "mine",
        "stages.boxes.data": "mine",
        "stages.segment.data": "mine",
        "stages.segment.target": "mask",
    })  # fmt: skip


def test_where_a_folder_lies_changes_nothing(tmp_path: Path) -> None:
    here, there = (write_folder(tmp_path / name / "deep") for name in ("here", "there"))
    plans = [planned(_on_folder(root), tmp_path / "cache") for root in (here, there)]
    assert plans[0].nodes.keys() == plans[1].nodes.keys()


def test_one_changed_picture_changes_the_stages_that_read_it(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine")
    before = by_stage(planned(_on_folder(root), tmp_path / "cache"))
    save(picture(99), root / "images" / "ben.tif")
    after = by_stage(planned(_on_folder(root), tmp_path / "cache"))
    assert before["segment"].isdisjoint(after["segment"]) is False  # a fold whose training half has not seen it
    assert before["segment"] != after["segment"]


def test_a_changed_mask_changes_only_the_stages_that_learn_masks(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine")
    before = by_stage(planned(_on_folder(root), tmp_path / "cache"))
    for number, name in enumerate(("anna-1", "anna-2", "ben", "carl", "dora")):
        save(np.eye(48, 64, number, dtype=np.uint8), root / "masks" / f"{name}.png")
    after = by_stage(planned(_on_folder(root), tmp_path / "cache"))
    assert before["classify"] == after["classify"]
    assert before["boxes"] == after["boxes"]
    assert before["segment"].isdisjoint(after["segment"])


def test_what_the_networks_output_stands_for_changes_a_stage(tmp_path: Path) -> None:
    plan = planned(base({"pathways": {"none": ["boxes", "segment"]}}), tmp_path)
    index = plan.views["hospital"].index
    boxes, segment = plan.arms[0].chain
    assert len({stage_identity(segment, one).digest for one in (
        index, replace(index, classes=index.classes[::-1]), replace(index, overlapping=False),
    )}) == 3  # fmt: skip
    fewer = replace(index, structures=index.structures[1:])
    assert stage_identity(boxes, index).digest != stage_identity(boxes, fewer).digest
    assert stage_identity(segment, index).digest == stage_identity(segment, fewer).digest


def test_weights_from_a_file_count_by_content(tmp_path: Path) -> None:
    first, same, other = (tmp_path / name for name in ("first", "same", "other"))
    own = get_encoder("resnet18", in_channels=1, weights=None).state_dict()
    for file, value in ((first, 1.0), (same, 1.0), (other, 2.0)):
        save_file({name: np.full_like(tensor.numpy(), value) for name, tensor in own.items()}, file)

    def nodes(file: Path, **more: object) -> set[str]:
        return set(planned(base({"compare.initial_weights": [{"file": str(file), **more}]}), tmp_path).nodes)

    assert nodes(first) == nodes(same) == nodes(same, allow=[])
    assert nodes(first).isdisjoint(nodes(other))
    assert nodes(first, allow=["a", "b"]) == nodes(first, allow=["b", "a"])
    assert nodes(first, allow=["a"]).isdisjoint(nodes(first) | nodes(first, allow=["b"]))


EVALUATION: dict[str, Document] = {
    "threshold": {"evaluate": {"threshold": 0.4}},
    "stage's threshold": {"stages.segment.threshold": 0.4},
    "size": {"evaluate": {"size": 128}},
}


@pytest.mark.parametrize("changes", EVALUATION.values(), ids=EVALUATION)
def test_settings_of_evaluation_change_the_key_of_every_scoring(changes: Document, tmp_path: Path) -> None:
    before, after = planned(base(), tmp_path), planned(base(changes), tmp_path)
    keys = [{one.scoring.key for one in plan.replicates} for plan in (before, after)]
    assert keys[0].isdisjoint(keys[1])


def test_a_threshold_leaves_what_was_examined_the_same(tmp_path: Path) -> None:
    before, after = planned(base(), tmp_path), planned(base(EVALUATION["threshold"]), tmp_path)
    evaluation = [{one.scoring.evaluation for one in plan.replicates} for plan in (before, after)]
    assert evaluation[0] == evaluation[1]


def test_numbers_that_are_no_numbers_have_no_name() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest(math.nan)


def test_parts_are_kept_apart() -> None:
    assert combined("ab", "c") != combined("a", "bc")
    assert combined("a", "") != combined("a")


def test_names_of_digests_do_not_move() -> None:
    assert digest({"b": [1, 2.5, None], "a": "ü"}) == "c239a4a8c77eaa057e329e97f7c35441"


def test_settings_of_a_later_version_leave_the_digest_as_it_was_at_their_defaults() -> None:
    defaults = {"settings.augment.border": "constant", "settings.average.lr": None, "link.keep_dropout": False}
    earlier: dict[str, Any] = {"settings": {"augment": {"flip": 0.5}, "average": None}, "link": {"freeze": []}}
    later: dict[str, Any] = {
        "settings": {"augment": {"flip": 0.5, "border": "constant"}, "average": None},
        "link": {"freeze": [], "keep_dropout": False},
    }
    assert without_defaults(later, defaults) == earlier
    assert later["link"] == {"freeze": [], "keep_dropout": False}
    later["settings"]["augment"]["border"] = "reflect"
    assert without_defaults(later, defaults)["settings"] == later["settings"]


def test_the_cost_of_annotation_and_budgets_change_no_stage(tmp_path: Path) -> None:
    minutes = {"mask": 8, "box": 0.5, "points": 0.2, "scribble": 1, "class": 0.1}
    changes = {f"data.{name}.annotation_minutes": minutes for name in ("clinic", "hospital")}
    assert by_stage(planned(base(), tmp_path)) == by_stage(planned(base({**changes, "compare.hours": [1]}), tmp_path))
