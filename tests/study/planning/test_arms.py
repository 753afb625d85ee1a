"""Arms: the compared combinations, and the chain of stages of each."""

from typing import Any

import pytest

from study.config.compare import WeightsFile
from study.config.schema import StudySpec
from study.planning.arms import Arm, Resolver, assignments, text_of
from study.planning.baselines import baseline_of, family_name
from tests.support.documents import Document, base, compare


def resolved(document: Document) -> list[Arm]:
    spec = StudySpec.model_validate(document)
    resolver = Resolver(spec)
    arms = [arm for row in assignments(spec) if (arm := resolver.arm(row)) is not None]
    assert resolver.problems == []
    return arms


def rows(**changes: object) -> list[tuple[str, ...]]:
    assigned = assignments(StudySpec.model_validate(compare(**changes)))
    return [tuple(text_of(value) for value in row.values()) for row in assigned]


def test_the_grid_has_every_combination_in_the_order_of_the_file() -> None:
    assert rows(backbone=["resnet18", "resnet34"], pathway=["one_step", "none"]) == [
        ("unet", "resnet18", "random", "one_step"),
        ("unet", "resnet18", "random", "none"),
        ("unet", "resnet34", "random", "one_step"),
        ("unet", "resnet34", "random", "none"),
    ]


def test_without_a_list_every_pathway_is_compared() -> None:
    assert [row[-1] for row in rows()] == ["none", "one_step", "two_step"]


def test_a_rule_excludes_combinations_with_all_its_values() -> None:
    assigned = rows(backbone=["resnet18", "resnet34"], exclude=[{"backbone": "resnet34", "pathway": "two_step"}])
    assert len(assigned) == 5
    assert ("unet", "resnet34", "random", "two_step") not in assigned


def test_an_extra_arm_has_the_grids_values_of_unspecified_factors() -> None:
    assigned = rows(backbone=["resnet18", "resnet34"], include=[{"architecture": "fpn", "pathway": "none"}])
    assert assigned[-2:] == [("fpn", "resnet18", "random", "none"), ("fpn", "resnet34", "random", "none")]


def test_an_extra_arm_already_in_the_grid_is_not_repeated() -> None:
    assert len(rows(include=[{"pathway": "none"}])) == 3


def test_an_extra_arm_is_included_although_it_is_excluded() -> None:
    assert len(rows(exclude=[{"pathway": "none"}], include=[{"pathway": "none"}])) == 3


def test_a_weights_file_is_excluded_and_included_as_it_is_listed() -> None:
    weights: list[Any] = ["random", {"file": "a.safetensors"}]
    assigned = rows(
        initial_weights=weights, exclude=[{"initial_weights": {"file": "a.safetensors"}, "pathway": "none"}]
    )
    assert len(assigned) == 5
    assert rows(include=[{"initial_weights": {"file": "b.safetensors"}}])[-1][2] == "b.safetensors"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("unet", "unet"),
        (0.5, "0.5"),
        (WeightsFile(file="a/b.safetensors"), "b.safetensors"),
        ({"dice": 1.0, "focal": 0.5}, "{dice: 1.0, focal: 0.5}"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values_are_written_as_in_the_file(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_factor_changes_its_stage_and_no_other() -> None:
    arms = resolved(compare(**{"classify.batch_size": [2, 4], "pathway": ["one_step"]}))
    assert [[step.settings.batch_size for step in arm.chain] for arm in arms] == [[2, 8], [4, 8]]
    assert [arm.factors["classify.batch_size"] for arm in arms] == ["2", "4"]


def test_the_target_is_the_last_stage() -> None:
    document = base({
        "stages.slow": {"task": "segmentation", "data": "hospital", "epochs": 9},
        "pathways": {"fast": ["boxes", "segment"], "slow": ["boxes", "slow"]},
        "compare": {**compare()["compare"], "target.batch_size": [4], "baseline": []},
    })  # fmt: skip
    assert [[step.settings.batch_size for step in arm.chain] for arm in resolved(document)] == [[8, 4], [8, 4]]


def test_a_nested_factor_keeps_the_other_settings_of_its_block() -> None:
    document = compare(**{"segment.optimizer.lr": [0.1], "pathway": ["none"]})
    document["stages"]["segment"]["optimizer"] = {"name": "sgd", "momentum": 0.9}
    (arm,) = resolved(document)
    assert arm.chain[0].settings.optimizer.model_dump() == {
        "name": "sgd", "momentum": 0.9, "lr": 0.1, "weight_decay": 0.0, "alpha": 0.99, "betas": (0.9, 0.999),
        "encoder_lr_factor": 1.0, "layer_decay": 1.0,
    }  # fmt: skip


def test_a_factor_of_image_applies_unless_a_stage_overrides_it() -> None:
    document = compare(**{"image.size": [32, 96], "pathway": ["one_step"]})
    document["stages"]["classify"]["image"] = {"size": 128}
    assert [[step.image.size for step in arm.chain] for arm in resolved(document)] == [[128, 32], [128, 96]]


def test_a_stage_that_trains_an_encoder_has_no_architecture() -> None:
    (arm,) = resolved(compare(pathway=["one_step"]))
    assert [step.architecture for step in arm.chain] == [None, "unet"]


def test_equal_steps_are_one_object() -> None:
    arms = resolved(compare(architecture=["unet", "fpn"], pathway=["one_step"]))
    assert arms[0].chain[0] is arms[1].chain[0]
    assert arms[0].chain[1] is not arms[1].chain[1]


def test_a_baseline_keeps_the_factors_that_it_does_not_name() -> None:
    (arm,) = resolved(compare(pathway=["one_step"], initial_weights=["imagenet"]))
    assert baseline_of(arm, {"pathway": "none"}) == ("unet", "resnet18", "imagenet", "none")
    scratch = {"pathway": "none", "initial_weights": "random"}
    assert baseline_of(arm, scratch) == ("unet", "resnet18", "random", "none")
    assert family_name(scratch) == "pathway=none, initial_weights=random"


def test_each_of_several_baselines_requires_its_arms() -> None:
    spec = StudySpec.model_validate(compare(baseline=[{"pathway": "none"}, {"pathway": "one_step"}]))
    assert spec.compare.baseline == ({"pathway": "none"}, {"pathway": "one_step"})
    assert StudySpec.model_validate(compare(baseline={"pathway": "none"})).compare.baseline == ({"pathway": "none"},)
