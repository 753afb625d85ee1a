"""Recipes: their values, their overrides, and recipes of a study, of a stage and as a factor."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from study.config.evaluation import Evaluate
from study.config.recipes import RECIPES
from study.config.schema import StudySpec
from study.config.stages import SegmentationStage, Stage, StageSettings
from study.planning.arms import Arm, Resolver, assignments
from study.planning.evaluation import EvaluationSettings

STAGE: TypeAdapter[Stage] = TypeAdapter(StageSettings)
SEGMENT = {"task": "segmentation", "data": "mine", "steps": 10}


def stage(**settings: object) -> SegmentationStage:
    parsed = STAGE.validate_python(SEGMENT | settings)
    assert isinstance(parsed, SegmentationStage)
    return parsed


def study(**parts: object) -> StudySpec:
    document = {
        "name": "s",
        "data": {"mine": {"source": "phantom"}},
        "stages": {
            "encode": {"task": "reconstruction", "data": "mine", "epochs": 1, "architecture": "unet"},
            "segment": SEGMENT,
        },
        "pathways": {"none": ["segment"], "two": ["encode", "segment"]},
        "compare": {"architecture": ["unet"], "backbone": ["resnet18"]},
    }
    return StudySpec.model_validate(document | parts)


def arms(spec: StudySpec) -> list[Arm]:
    resolver = Resolver(spec)
    resolved = [resolver.arm(row) for row in assignments(spec)]
    assert resolver.problems == []
    return [arm for arm in resolved if arm is not None]


def test_plain_has_the_defaults() -> None:
    assert stage(recipe="plain").model_copy(update={"recipe": None}) == stage()


def test_strong_sets_optimizer_schedule_augmentation_average_and_inference() -> None:
    strong = stage(recipe="strong")
    assert (strong.optimizer.name, strong.optimizer.weight_decay, strong.optimizer.lr) == ("adamw", 0.01, 0.001)
    assert (strong.schedule.name, strong.schedule.warmup, strong.clip_norm) == ("cosine", 0.05, 1.0)
    assert strong.average is not None
    assert (strong.average.name, strong.average.decay) == ("ema", 0.99)
    assert (strong.augment.preset, strong.augment.flip, strong.augment.elastic) == ("strong", 0.5, 0.03)
    assert EvaluationSettings.of(Evaluate(), strong).tta == ("flip",)


def test_stages_without_masks_get_only_the_settings_they_have() -> None:
    encode = STAGE.validate_python({"task": "reconstruction", "data": "mine", "epochs": 1, "recipe": "strong"})
    assert (encode.optimizer.name, encode.augment.preset) == ("adamw", "strong")
    assert not hasattr(encode, "tta")


def test_stages_that_compare_views_keep_their_augmentation_preset() -> None:
    contrast = STAGE.validate_python({"task": "contrastive", "data": "mine", "epochs": 1, "recipe": "strong"})
    assert (contrast.optimizer.name, contrast.augment.preset, contrast.augment.flip) == ("adamw", "views", 0.5)
    explicit = {"augment": {"preset": "strong"}}
    contrast = STAGE.validate_python(
        {"task": "contrastive", "data": "mine", "epochs": 1, "recipe": "strong"} | explicit
    )
    assert contrast.augment.preset == "strong"


def test_explicit_settings_override_single_values() -> None:
    parsed = stage(recipe="strong", optimizer={"lr": 0.01}, augment={"rotate": 5}, clip_norm=None, tta=[])
    assert (parsed.optimizer.name, parsed.optimizer.weight_decay, parsed.optimizer.lr) == ("adamw", 0.01, 0.01)
    assert (parsed.augment.rotate, parsed.augment.elastic, parsed.augment.flip) == (5, 0.03, 0.5)
    assert parsed.clip_norm is None
    assert EvaluationSettings.of(Evaluate(), parsed).tta == ()


@pytest.mark.parametrize(("tta", "expected"), [(None, ("flip",)), ([], ()), (["rotate"], ("rotate",))])
def test_test_time_augmentation_of_the_study_overrides_the_recipe(
    tta: list[str] | None, expected: tuple[str, ...]
) -> None:
    spec = study(recipe="strong", evaluate={"tta": tta})
    assert EvaluationSettings.of(spec.evaluate, spec.stages["segment"]).tta == expected
    stages = {"segment": SEGMENT | {"tta": ["vertical_flip"]}}
    spec = study(recipe="strong", evaluate={"tta": tta}, stages=stages, pathways={"none": ["segment"]})
    assert EvaluationSettings.of(spec.evaluate, spec.stages["segment"]).tta == ("vertical_flip",)


def test_another_method_replaces_that_of_the_recipe_with_all_its_values() -> None:
    parsed = stage(
        recipe="strong", optimizer={"name": "sgd", "momentum": 0.9}, schedule={"name": "plateau"},
        average={"name": "swa"}, augment={"preset": "light"},
    )  # fmt: skip
    assert (parsed.optimizer.name, parsed.optimizer.weight_decay) == ("sgd", 0.0)
    assert (parsed.schedule.name, parsed.schedule.warmup) == ("plateau", 0.0)
    assert parsed.average is not None
    assert (parsed.average.name, parsed.average.decay) == ("swa", 0.999)
    assert (parsed.augment.preset, parsed.augment.elastic) == ("light", 0.0)


def test_a_stage_is_restored_from_its_record_even_if_the_recipe_changes() -> None:
    parsed = stage(recipe="strong", optimizer={"lr": 0.01}, average=None)
    record = parsed.model_dump(mode="json", by_alias=True)
    assert STAGE.validate_python(record) == parsed
    assert STAGE.validate_python(record | {"recipe": "plain"}).model_copy(update={"recipe": "strong"}) == parsed


def test_a_mean_teacher_is_not_combined_with_a_moving_average() -> None:
    averages = {}
    for method in ("mean_teacher", "fixmatch"):
        document = {"task": "consistency", "data": "mine", "steps": 5, "recipe": "strong"}
        parsed = STAGE.validate_python(document | {"consistency": {"method": method}})
        assert (parsed.optimizer.name, parsed.augment.preset) == ("adamw", "strong")
        averages[method] = parsed.average is not None
    assert averages == {"mean_teacher": False, "fixmatch": True}
    stages = {"segment": {"task": "consistency", "data": "mine", "steps": 5, "recipe": "strong"}}
    methods = {"segment.consistency.method": ["mean_teacher", "unimatch"]}
    compare = {"architecture": ["unet"], "backbone": ["resnet18"]} | methods
    made_arms = arms(study(compare=compare, stages=stages, pathways={"none": ["segment"]}))
    assert [arm.chain[-1].settings.average is None for arm in made_arms] == [True, False]


def test_the_recipe_of_a_study_applies_to_stages_without_one() -> None:
    spec = study(recipe="strong", stages={"segment": SEGMENT, "other": SEGMENT | {"recipe": "plain"}})
    assert spec.stages["segment"].optimizer.name == "adamw"
    assert spec.stages["other"].optimizer.name == "adam"


def test_a_recipe_is_a_factor_of_all_stages_or_of_one() -> None:
    compare = {"architecture": ["unet"], "backbone": ["resnet18"]}
    of_all = arms(study(compare=compare | {"recipe": ["plain", "strong"], "pathway": ["two"]}))
    assert [arm.factors["recipe"] for arm in of_all] == ["plain", "strong"]
    assert [[step.settings.optimizer.name for step in arm.chain] for arm in of_all] == [["adam"] * 2, ["adamw"] * 2]
    of_target = arms(study(compare=compare | {"target.recipe": ["plain", "strong"], "pathway": ["two"]}))
    names = [[step.settings.optimizer.name for step in arm.chain] for arm in of_target]
    assert names == [["adam", "adam"], ["adam", "adamw"]]


def test_the_factor_does_not_change_explicit_settings_and_stages_with_another_recipe() -> None:
    compare = {"architecture": ["unet"], "backbone": ["resnet18"], "recipe": ["plain", "strong"], "pathway": ["two"]}
    encode = {"task": "reconstruction", "data": "mine", "epochs": 1, "architecture": "unet", "recipe": "plain"}
    segment = SEGMENT | {"optimizer": {"lr": 0.02}}
    for recipe in (None, "strong", "plain"):  # even if it equals that of the study
        spec = study(compare=compare, stages={"encode": encode, "segment": segment}, recipe=recipe)
        plain, strong = arms(spec)
        assert [arm.chain[0].settings.optimizer.name for arm in (plain, strong)] == ["adam", "adam"]
        assert [arm.chain[1].settings.optimizer.name for arm in (plain, strong)] == ["adam", "adamw"]
        assert [arm.chain[1].settings.optimizer.lr for arm in (plain, strong)] == [0.02, 0.02]
        assert plain.chain[1].settings.augment.elastic == 0.0


def test_a_factor_can_change_one_value_of_a_recipe() -> None:
    factor = {"segment.augment.rotate": [0, 5], "pathway": ["none"]}
    compare = {"architecture": ["unet"], "backbone": ["resnet18"], **factor}
    spec = study(compare=compare, stages={"segment": SEGMENT | {"recipe": "strong"}}, pathways={"none": ["segment"]})
    rotations = [arm.chain[0].settings.augment for arm in arms(spec)]
    assert [(augment.rotate, augment.elastic) for augment in rotations] == [(0, 0.03), (5, 0.03)]


@pytest.mark.parametrize("parts", [
    {"recipe": "weak"}, {"stages": {"segment": SEGMENT | {"recipe": "weak"}}},
    {"compare": {"architecture": ["unet"], "backbone": ["resnet18"], "recipe": ["weak"]}},
])  # fmt: skip
def test_unknown_recipes_are_refused_with_the_known_ones(parts: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        study(**parts)
    assert all(name in str(refused.value) for name in RECIPES)
    assert refused.value.errors()[0]["loc"][-1] in ("recipe", 0)
