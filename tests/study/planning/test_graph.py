"""The graph of unique stages: their number, shared stages, and stages kept when a study grows."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from study.monitoring.plan_summary import summary
from study.planning.graph import Plan, image_epochs
from study.store.store import Store
from tests.support.documents import Document, base, by_stage, compare, planned

PAPER: Document = {
    "name": "two-step",
    "data": {
        "chexpert": {"source": "phantom", "images": 20, "patients": 10, "seed": 1},
        "sfrc": {"source": "phantom", "images": 18, "patients": 9, "seed": 2},
        "ccxs": {
            "source": "phantom", "images": 100, "patients": 100, "seed": 3,
            "split": {"test": {"images": 10}, "validation": "folds"},
        },
    },
    "image": {"size": 256},
    "stages": {
        "classify": {"task": "classification", "data": "chexpert", "epochs": 30},
        "encode": {"task": "reconstruction", "data": "chexpert", "epochs": 30, "architecture": "unet"},
        "boxes": {"task": "segmentation", "data": "sfrc", "target": "box_mask", "epochs": 30},
        "segment": {"task": "segmentation", "data": "ccxs", "epochs": 60},
    },
    "pathways": {
        "none": ["segment"],
        "one_step_classifier": ["classify", "segment"],
        "one_step_boxes": ["boxes", "segment"],
        "two_step_classifier": ["classify", "boxes", "segment"],
        "one_step_autoencoder": ["encode", "segment"],
        "two_step_autoencoder": ["encode", "boxes", "segment"],
        "one_step_whole": ["encode", {"stage": "segment", "carry": "encoder+decoder"}],
        "two_step_whole": [
            "encode", {"stage": "boxes", "carry": "encoder+decoder"}, {"stage": "segment", "carry": "encoder+decoder"},
        ],
    },
    "compare": {
        "architecture": ["unet", "deeplabv3"],
        "backbone": ["vgg16", "resnet50", "resnext50_32x4d"],
        "initial_weights": ["random", "imagenet"],
        "labelled_fraction": [1.0],
        "folds": 9,
        "seeds": [0],
        "baseline": {"pathway": "none"},
        "exclude": [
            {"architecture": "deeplabv3", "pathway": "one_step_whole"},
            {"architecture": "deeplabv3", "pathway": "two_step_whole"},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned(PAPER, tmp_path_factory.mktemp("cache"))


def test_the_grid_of_the_two_step_paper_has_1674_naive_and_810_unique_stages(
    paper: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    facts = summary(paper, Store(Path("nowhere")), Path("nowhere"))
    assert facts["stages"] == {"naive": 1674, "unique": 810, "finished": 0, "to_run": 810, "after_search": 0}
    assert (facts["arms"], facts["cells"], facts["replicates"]) == (84, 84, 756)
    assert facts["data"] == {"ccxs": 756, "chexpert": 12, "sfrc": 42}


def test_its_first_pretraining_set_is_trained_on_12_times_instead_of_540(paper: Plan) -> None:
    chains = [digest for replicate in paper.replicates for digest in replicate.chain]
    trained = [paper.nodes[digest].selection.data for digest in chains]
    assert Counter(trained)["chexpert"] == 540
    assert sum(node.selection.data == "chexpert" for node in paper.nodes.values()) == 12


def test_its_replicates_share_test_images_and_not_validation_images(paper: Plan) -> None:
    view = paper.views["ccxs"]
    splits = [view.split(fold=fold, seed=0, labelled=1.0) for fold in range(9)]
    assert paper.test_is_fixed
    assert len({split.test for split in splits}) == 1
    assert len(splits[0].test) == 10
    assert {len(split.validation) for split in splits} == {10}
    validating = [row for split in splits for row in split.validation]
    assert sorted(validating) == sorted(set(range(100)) - set(splits[0].test))


GROWN = {
    "a fraction": {"labelled_fraction": [0.25, 0.5, 1.0]},
    "a seed": {"seeds": [0, 1]},
    "a backbone": {"backbone": ["resnet18", "resnet34"]},
    "an architecture": {"architecture": ["fpn", "unet"]},
    "initial weights": {"initial_weights": ["imagenet", "random"]},
    "an arm": {"include": [{"architecture": "linknet", "pathway": "none"}]},
    "a factor with the previous value first": {"segment.batch_size": [8, 4]},
}


@pytest.mark.parametrize("changes", GROWN.values(), ids=GROWN)
def test_an_extended_study_keeps_all_its_stages(changes: dict[str, Any], tmp_path: Path) -> None:
    before, after = planned(base(), tmp_path), planned(compare(**changes), tmp_path)
    assert before.nodes.keys() < after.nodes.keys()


def test_an_added_pathway_shares_its_first_stages(tmp_path: Path) -> None:
    before = planned(base(), tmp_path)
    after = planned(base({"pathways.three": ["classify", "boxes", "segment"]}), tmp_path)
    assert before.nodes.keys() < after.nodes.keys()
    assert by_stage(before)["boxes"] == by_stage(after)["boxes"]


def test_parents_are_before_their_children(paper: Plan) -> None:
    known: set[str | None] = {None}
    for digest, node in paper.nodes.items():
        assert node.parent in known
        known.add(digest)


def test_an_encoder_is_trained_once_for_all_architectures(tmp_path: Path) -> None:
    stages = by_stage(
        planned(compare(architecture=["unet", "deeplabv3plus", "fpn"], pathway=["none", "one_step"]), tmp_path)
    )
    assert len(stages["classify"]) == 1
    assert len(stages["segment"]) == 3 * 2 * 4


def test_a_stage_with_its_own_architecture_is_shared(tmp_path: Path) -> None:
    document = base({
        "stages.encode": {"task": "reconstruction", "data": "clinic", "epochs": 1, "architecture": "unet"},
        "pathways.autoencoder": ["encode", "segment"],
        "compare.architecture": ["unet", "fpn"],
    })  # fmt: skip
    assert len(by_stage(planned(document, tmp_path))["encode"]) == 1


def test_a_stage_with_its_own_seed_is_shared_by_all_replicates(tmp_path: Path) -> None:
    plan = planned(compare(seeds=[0, 1]), tmp_path)
    shared = planned(base({"compare.seeds": [0, 1], "stages.classify.seed": 0}), tmp_path)
    assert len(by_stage(plan)["classify"]) == 2
    assert len(by_stage(shared)["classify"]) == 1


def test_arms_with_equal_training_are_merged_and_reported(tmp_path: Path) -> None:
    document = base({"pathways.again": ["classify", "segment"], "compare.baseline": []})
    plan = planned(document, tmp_path)
    facts = summary(plan, Store(tmp_path), tmp_path)
    assert facts["arms"] == 3
    assert [plan.arms[away].factors["pathway"] for away, _ in plan.graph.same_arms] == ["again"]
    assert facts["warnings"] == [
        "arm unet / resnet18 / random / again trains the same as unet / resnet18 / random / one_step: reported once"
    ]


def test_a_factor_without_effect_in_an_arm_adds_no_stage(tmp_path: Path) -> None:
    plan = planned(compare(**{"classify.batch_size": [8, 4]}), tmp_path)
    assert len(by_stage(plan)["classify"]) == 2
    assert [plan.arms[away].factors["pathway"] for away, _ in plan.graph.same_arms] == ["none"]


def test_image_epochs_count_epochs_over_training_images_and_steps_in_batches(tmp_path: Path) -> None:
    plan = planned(base({"stages.classify.epochs": 3}), tmp_path)
    (node,) = (node for node in plan.nodes.values() if node.step.stage == "classify")
    assert image_epochs(plan, node) == 3 * len(plan.views["clinic"].stage_rows(node.selection).train)
    plan = planned(
        base({"stages.classify.steps": 5, "stages.classify.batch_size": 4}, without=("stages.classify.epochs",)),
        tmp_path,
    )
    (node,) = (node for node in plan.nodes.values() if node.step.stage == "classify")
    assert image_epochs(plan, node) == 20


def test_every_arm_is_scored_at_one_size_on_the_same_cases(tmp_path: Path) -> None:
    document = compare(**{"segment.image.size": [32, 64]})
    plan = planned(document, tmp_path)
    assert {replicate.scoring.size for replicate in plan.replicates} == {64}
    cases = {(replicate.fold, replicate.scoring.evaluation) for replicate in plan.replicates}
    assert len(cases) == 2


def test_unavailable_published_weights_are_a_warning_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    plan = planned(compare(initial_weights=["imagenet"]), tmp_path)
    (warning,) = summary(plan, Store(tmp_path), tmp_path)["warnings"]
    assert warning.startswith("imagenet weights of resnet18 (smp-hub/resnet18.imagenet@")
