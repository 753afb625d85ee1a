"""What is checked of arms before data is read."""

from pathlib import Path

import pytest
import torch

from models.build import Blueprint, build
from study.config.schema import StudySpec
from study.errors import ConfigError
from study.planning.arms import Resolver, assignments
from study.planning.checks import spec_checks
from tests.support.documents import Document, base, compare, planned


def told(document: Document) -> list[str]:
    spec = StudySpec.model_validate(document)
    resolver = Resolver(spec)
    arms = [arm for row in assignments(spec) if (arm := resolver.arm(row)) is not None]
    problems = [*spec_checks.arm_problems(arms), *spec_checks.unused_patch_problems(spec, arms)]
    return sorted({f"{problem.path}: {problem.message}" for problem in problems})


def test_a_fault_of_many_arms_is_told_once() -> None:
    document = compare(architecture=["unet", "fpn", "pan"], initial_weights=["random", "imagenet"])
    document["image"] = {"size": 160}
    document["stages"]["boxes"]["image"] = {"size": 96}
    assert told(document) == [
        "stages.boxes.image.size: image size is 96; allowed: multiples of 16 from 128 on; set image.size to 128"
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"stages.boxes.image": {"fit": "patch"}},
            "stages.boxes.image: fit is patch under segmentation with target box_mask; allowed: with masks or "
            "without annotation; set image.fit of this stage to stretch or letterbox",
        ),
        (
            {"stages.segment.patch": {"per_image": 2}},
            "stages.segment.patch: is set without fit: patch; allowed: with it; remove it, or set image.fit",
        ),
        (
            {"stages.segment.image": {"scale": 0.5}},
            "stages.segment.image.scale: is 0.5 without fit: patch; allowed: with it; remove it, or set image.fit",
        ),
    ],
    ids=["boxes", "patch", "scale"],
)
def test_patches_where_they_are_not_possible_or_not_used(changes: Document, line: str) -> None:
    assert told(base({"pathways": {"two": ["boxes", "segment"]}} | changes)) == [line]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"stages.segment.augment": {"quarter_turns": 0.5}, "image.size": [64, 96]},
            "stages.segment.augment.quarter_turns: is 0.5 for inputs of [64, 96] pixels; allowed: square inputs; "
            "remove it, or set image.size to one number",
        ),
        (
            {"stages.classify.augment": {"cutmix": 0.5}},
            "stages.classify.augment.cutmix: is 0.5 under classification; allowed: stages with masks (segmentation, "
            "adversarial, consistency, pseudo_labels); remove it",
        ),
        (
            {"stages.classify.augment": {"copy_paste": 1}},
            "stages.classify.augment.copy_paste: is 1 under classification; allowed: stages with masks (segmentation, "
            "adversarial, consistency, pseudo_labels); remove it",
        ),
    ],
    ids=["quarter turns", "cutmix", "copy-paste"],
)
def test_augmentation_where_it_is_not_possible(changes: Document, line: str) -> None:
    assert told(base(changes)) == [line]


def test_augmentation_where_it_is_possible() -> None:
    mixed = {"quarter_turns": 0.5, "cutmix": 0.5, "copy_paste": 0.5}
    assert told(base({"stages.segment.augment": mixed, "stages.boxes.augment": mixed})) == []
    assert told(base({"stages.classify.augment": {"quarter_turns": 0.5}})) == []


def test_patches_and_whole_images_are_compared_in_one_study() -> None:
    changes = {"stages.segment.patch": {"per_image": 2}, "compare.segment.image.fit": ["patch", "stretch"]}
    assert told(base({**changes, "image": {"size": 64, "scale": 0.5}})) == []


def test_what_follows_from_a_network_that_cannot_be_built_is_not_told() -> None:
    (line,) = told(base({"stages.boxes.backbone": "resnet19", "pathways": {"two": ["boxes", "segment"]}}))
    assert line.startswith("stages.boxes.backbone: backbone is resnet19; allowed: ")


CONTRAST: Document = {"task": "contrastive", "data": "clinic", "epochs": 1}


def test_stages_that_compare_views_need_two_images_at_a_time() -> None:
    alone = {"stages.contrast": {**CONTRAST, "batch_size": 1}, "pathways": {"none": ["contrast", "segment"]}}
    (line,) = told(base(alone))
    assert line.startswith("stages.contrast.batch_size: is 1 under ")
    parts = {**CONTRAST, "batch_size": 3, "accumulate": 2}
    (line,) = told(base({**alone, "stages.contrast": parts}))
    assert line.startswith("stages.contrast.batch_size: is 3 in 2 parts under ")
    assert told(base({**alone, "stages.contrast": {**CONTRAST, "batch_size": 2}})) == []


def test_local_views_have_a_size_that_the_network_takes() -> None:
    stage = {
        "task": "self_distillation",
        "data": "clinic",
        "epochs": 1,
        "local_views": 2,
        "backbone": "tu-vit_tiny_patch16_224",
    }
    document = {"stages.view": stage, "pathways": {"none": ["segment"], "view": ["view"]}, "image.size": 64}
    assert [line for line in told(base(document)) if "local" in line] == []
    small = {**stage, "local_size": 0.3}
    (line,) = [line for line in told(base({**document, "stages.view": small})) if "local" in line]
    assert line.startswith("stages.view.local_size: is 0.3: image size is 19 for local views; allowed: ")
    assert line.endswith("; change local_size or image.size")


def test_stages_that_compare_views_train_no_decoder_to_carry() -> None:
    links = ["contrast", {"stage": "segment", "carry": "encoder+decoder"}]
    (line,) = told(base({"stages.contrast": CONTRAST, "pathways": {"none": links}}))
    assert "carries encoder+decoder, but contrast (contrastive) never trained a decoder" in line


def test_a_decoder_passes_between_stages_of_one_architecture_only() -> None:
    assert told(compare(architecture=["unet"])) == []
    document = compare(architecture=["unet", "fpn"])
    document["stages"]["boxes"]["architecture"] = "unet"
    (line,) = told(document)
    assert line.startswith("pathways.two_step[2]: segment has architecture fpn and boxes before it unet; allowed: ")


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("unet", "resnet18"), ("pspnet", "resnet18"), ("unet", "mit_b0"), ("pspnet", "mit_b0"), ("pspnet", "vgg16")],
)
def test_a_link_may_freeze_just_the_stages_its_network_has(architecture: str, backbone: str) -> None:
    network = build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=1))
    for number in range(1, 6):
        part = f"encoder.stage{number}"
        document = base({
            "compare.architecture": [architecture],
            "compare.backbone": [backbone],
            "pathways": {"none": [{"stage": "segment", "freeze": [part]}]},
        })  # fmt: skip
        refused = told(document) != []
        try:
            network.freeze([part])
        except ValueError:
            assert refused, part
        else:
            assert not refused, part


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3", "deeplabv3plus", "pspnet", "upernet"])
def test_batches_of_one_image_are_refused_just_where_the_network_cannot_train_on_them(architecture: str) -> None:
    network = build(Blueprint(architecture=architecture, backbone="resnet18", channels=1, outputs=1))
    document = base({
        "compare.architecture": [architecture], "compare.backbone": ["resnet18"], "image.size": 64,
        "stages.segment.batch_size": 1, "pathways": {"none": ["segment"]},
    })  # fmt: skip
    try:
        network.train()(torch.rand(1, 1, 64, 64))
    except ValueError:
        (line,) = told(document)
        assert line.startswith("stages.segment.batch_size: is 1 under ")
    else:
        assert told(document) == []


def test_a_global_average_over_one_image_at_a_time_is_refused() -> None:
    document = base({
        "compare.architecture": ["deeplabv3"], "compare.backbone": ["resnet18"], "image.size": 64,
        "stages.segment.batch_size": 4, "stages.segment.accumulate": 4, "pathways": {"none": ["segment"]},
    })  # fmt: skip
    (line,) = told(document)
    assert line.startswith("stages.segment.batch_size: is 4 in 4 parts under deeplabv3")


def test_decoders_that_upsample_otherwise_do_not_pass() -> None:
    document = compare(architecture=["unet"])
    document["stages"]["segment"]["upsampling"] = "nearest"  # the U-Net's own
    assert told(document) == []
    document["stages"]["segment"]["upsampling"] = "bilinear"
    (line,) = told(document)
    assert "segment has upsampling bilinear and boxes before it nearest; allowed: the same" in line


def test_own_encoders_pass_within_their_architecture_only() -> None:
    own = {"compare.architecture": ["xnet"], "compare.backbone": ["own"], "pathways": {"two": ["classify", "segment"]}}
    assert told(base(own)) == []
    (line,) = told(base({**own, "stages.classify.architecture": "unet_plain"}))
    assert "segment has architecture xnet and classify before it unet_plain; allowed: the same" in line


def test_a_head_passes_between_stages_of_one_target_on_one_data_set_only() -> None:
    whole = {"stage": "segment", "carry": "encoder+decoder+head"}
    (line,) = told(base({"pathways": {"two": ["boxes", whole]}, "stages.boxes.data": "hospital"}))
    assert "segment has target mask and boxes before it box_mask; allowed: the same" in line


def test_images_too_small_for_a_discriminator_are_refused() -> None:
    judge = {"discriminator": {"name": "patchgan", "receptive_field": 256}}
    document = base({
        "pathways": {"none": ["play"]}, "image.size": 32,
        "stages.play": {"task": "adversarial", "data": "hospital", "epochs": 1, "adversarial": judge},
    })  # fmt: skip
    (line,) = told(document)
    assert "image size is 32 under patchgan; allowed: " in line


def test_two_networks_that_would_be_equal_are_refused() -> None:
    consistent = {"task": "consistency", "data": "hospital", "epochs": 1, "consistency": {"method": "cross_pseudo"}}
    document: Document = {
        "stages.consistent": consistent,
        "stages.boxes.target": "mask",
        "stages.boxes.data": "hospital",
    }
    carried = [{"stage": "consistent", "carry": f"encoder{parts}"} for parts in ("", "+decoder", "+decoder+head")]
    lines = [told(base({**document, "pathways": {"two": ["boxes", link]}})) for link in carried]
    assert lines[:2] == [[], []]
    assert lines[2] == [
        "pathways.two[1].carry: is encoder+decoder+head under cross_pseudo, so that its two networks are equal; "
        "allowed: encoder, encoder+decoder; change it, or choose another method"
    ]
    first = told(base({**document, "pathways": {"one": [carried[2]]}}))
    assert first == [], "carry without a stage before it has its own message"


SECOND_PHASE: Document = {"task": "adversarial", "data": "hospital", "batch_size": 4}
LATE: Document = {"adversarial": {"unlabelled_start": 4}}


def test_images_without_masks_start_before_the_last_step() -> None:
    StudySpec.model_validate(base({"stages.play": {**SECOND_PHASE, "steps": 5, **LATE}}))
    with pytest.raises(ValueError, match=r"unlabelled_start is 4 of 4 updates, .*; allowed: fewer than 4; lower it"):
        StudySpec.model_validate(base({"stages.play": {**SECOND_PHASE, "steps": 4, **LATE}}))


def test_images_without_masks_start_before_the_last_epoch_of_the_smallest_fraction(tmp_path: Path) -> None:
    """All labelled training images are 2 updates in an epoch, half of them are 1."""
    play = {**SECOND_PHASE, "batch_size": 8, "epochs": 2, "adversarial": {"unlabelled_start": 2}}
    validation = {"compare.labelled_fraction": [0.5, 1.0], "validation": {"min_cases": 20}}
    document = base({**validation, "stages.play": play, "pathways": {"none": ["segment"], "play": ["play"]}})
    with pytest.raises(ConfigError) as raised:
        planned(document, tmp_path)
    (problem,) = raised.value.problems
    assert problem.path == "stages.play.adversarial.unlabelled_start"
    assert problem.message.startswith(
        "is 2 of 2 updates, so that no image without masks is used; allowed: fewer than 2"
    )
    planned({**document, "stages": {**document["stages"], "play": {**play, "epochs": 3}}}, tmp_path)


MASKED = {"task": "masked_reconstruction", "data": "clinic", "epochs": 1}


def masked(changes: Document, **settings: object) -> list[str]:
    document = {"stages.mask": MASKED | settings, "pathways": {"masked": ["mask", "segment"]}}
    return told(base({**document, **changes}))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"method": "mae"},
            "stages.mask.method: method is mae with the backbone resnet18; allowed: plain vision transformers with a "
            "position embedding such as tu-vit_small_patch16_224; choose one of these, or method: simmim",
        ),
        (
            {"mask_size": 64},
            "stages.mask.mask_size: mask_size is 64 for images of 64 pixels; allowed: below their side; lower it",
        ),
    ],
)
def test_masks_that_do_not_fit_network_or_image_are_refused(settings: Document, line: str) -> None:
    assert masked({}, **settings) == [line]


def test_masked_reconstruction_passes_on_the_parts_it_trains() -> None:
    carried = {"pathways": {"masked": ["mask", {"stage": "segment", "carry": "encoder+decoder"}]}}
    (line,) = masked(carried)
    assert "carries encoder+decoder, but mask (masked_reconstruction) never trained a decoder" in line
    assert masked(carried, decoder="architecture") == []
    transformer = {"compare.backbone": ["tu-vit_tiny_patch16_224"], "compare.architecture": ["linear"]}
    assert masked(transformer, method="mae") == []


def test_masked_reconstruction_with_the_published_decoder_is_shared_by_architectures(tmp_path: Path) -> None:
    document = {"stages.mask": MASKED, "pathways": {"masked": ["mask", "segment"]}}
    compared = {"compare.architecture": ["unet", "fpn"], "compare.baseline": []}
    shared, apart = (
        planned(base({**document, **compared, "stages.mask.decoder": decoder}), tmp_path)
        for decoder in ("published", "architecture")
    )
    counts = [sum(node.step.stage == "mask" for node in plan.nodes.values()) for plan in (shared, apart)]
    assert counts == [1, 2]
