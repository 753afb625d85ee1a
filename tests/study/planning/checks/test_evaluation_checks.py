"""Settings of evaluation that do not fit the classes or the inputs, and warnings about mirrored sides."""

from pathlib import Path

import pytest

from study.errors import ConfigError
from study.planning.graph import Plan
from study.search.load import load_plan
from tests.support.pictures import picture, save


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with overlapping masks of both lungs."""
    place = tmp_path_factory.mktemp("lungs") / "data"
    for number in range(9):
        pixels = picture(number, width=64, height=64)
        save(pixels, place / "images" / f"{number}.png")
        for name in ("Left Lung", "right_lung", "cleft"):
            save((pixels > 60).astype("uint8") * 255, place / "masks" / name / f"{number}.png")
    return place


def plan(root: Path, *, classes: list[str], **parts: object) -> Plan:
    document = {
        "name": "lungs", "data": {"mine": {"source": "folder", "root": str(root), "classes": classes}},
        "image": {"size": 32}, "stages": {"segment": {"task": "segmentation", "data": "mine", "epochs": 1}},
        "pathways": {"none": ["segment"]}, "compare": {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 3},
        "validation": {"min_cases": 1},
    }  # fmt: skip
    return load_plan(document | parts, file="lungs.yaml", cache=root.parent / "cache")


def mirrored(root: Path, *, classes: list[str], **parts: object) -> list[str]:
    return [warning for warning in plan(root, classes=classes, **parts).warnings if "mirrored" in warning]


LUNGS = ["Left Lung", "right_lung"]
STAGE = {"task": "segmentation", "data": "mine", "epochs": 1}


@pytest.mark.parametrize(("stage", "keys"), [
    ({"augment": {"flip": 0.5}}, "augment.flip"), ({"augment": {"vertical_flip": 0.1}}, "augment.vertical_flip"),
    ({"tta": ["vertical_flip"]}, "tta"), ({"recipe": "strong"}, "augment.flip, tta"),
    ({"tta": ["rotate"], "augment": {"quarter_turns": 0.5}}, None), ({}, None),
])  # fmt: skip
def test_mirrored_images_of_sided_classes_cause_a_warning(
    root: Path, stage: dict[str, object], keys: str | None
) -> None:
    warnings = mirrored(root, classes=LUNGS, stages={"segment": STAGE | stage})
    expected = f"stages.segment: images are mirrored ({keys}), but the classes Left Lung, right_lung depend on the side"
    assert [warning.partition(";")[0] for warning in warnings] == ([expected] if keys else [])


def test_the_warning_does_not_depend_on_the_order_of_factors(root: Path) -> None:
    for recipes in (["plain", "strong"], ["strong", "plain"]):
        compare = {"architecture": ["unet"], "backbone": ["resnet18"], "folds": 3, "recipe": recipes}
        assert len(mirrored(root, classes=LUNGS, compare=compare)) == 1


def test_classes_without_a_side_cause_no_warning(root: Path) -> None:
    assert mirrored(root, classes=["cleft"], recipe="strong") == []


@pytest.mark.parametrize(("parts", "expected"), [
    ({"evaluate": {"postprocess": {"smallest_area": {"lung": 3}}}}, "evaluate.postprocess: unknown class 'lung'"),
    ({"evaluate": {"tta": ["rotate"]}, "image": {"size": [32, 64]}}, "evaluate.tta: has rotate for inputs of [32, 64]"),
    ({"evaluate": {"threshold": 0.333, "postprocess": {"empty": "auto"}}}, "a multiple of 0.005"),
    ({"evaluate": {"postprocess": {"smallest_area": True}}}, "smallest_area: is true"),
    ({"evaluate": {"postprocess": {"empty": {"top": 0.3, "area": 1, "bottom": 0.4}}}}, "bottom at most top"),
    ({"stages": {"segment": STAGE | {"tta": ["turn"]}}}, "stages.segment.tta[0]: is turn; allowed: 'flip'"),
])  # fmt: skip
def test_unsuitable_settings_are_refused_in_one_line(root: Path, parts: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plan(root, classes=LUNGS, **parts)
    assert any(expected in line and "allowed: " in line for line in str(refused.value).splitlines()), refused.value


def test_equivalent_settings_have_equal_scorings(root: Path) -> None:
    def keys(postprocess: dict[str, object]) -> set[str]:
        with_postprocessing = plan(root, classes=LUNGS, evaluate={"postprocess": postprocess})
        return {replicate.scoring.key for replicate in with_postprocessing.replicates}

    assert keys({"smallest_area": 4}) == keys({"smallest_area": {"Left Lung": 4, "right_lung": 4}})
    assert keys({"smallest_area": {"Left Lung": 0}}) == keys({})
    assert keys({"smallest_area": 4}) != keys({"smallest_area": 5})
