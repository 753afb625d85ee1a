"""Claims in the comments of published studies in the catalog."""

import re
import shlex
from pathlib import Path

import pytest

from study.analysis.published import read_published
from study.config.document import read_document
from study.planning.checks.published_checks import published_warnings
from study.search.load import load_plan
from tests.golden.write import PLANNED, catalog_plan
from tests.support.presets import CATALOG


def commands(name: str) -> list[list[str]]:
    """Return the words of each `study run` in the comments of a study."""
    text = (CATALOG / f"{name}.yaml").read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^#   (study run .*)$", text, re.MULTILINE)]


def test_the_fixed_split_of_xnet_tests_all_replicates_on_the_same_images(tmp_path: Path) -> None:
    plan = catalog_plan("xnet_bone", tmp_path)
    assert plan.test_is_fixed
    assert len({plan.split(replicate).test for replicate in plan.replicates}) == 1
    validation = [plan.split(replicate).validation for replicate in plan.replicates if replicate.arm == 0]
    assert len(set(validation)) == len(validation) == plan.spec.compare.folds


def test_the_command_for_k_fold_testing_of_xnet_tests_every_image_once(tmp_path: Path) -> None:
    ((_, _, file, *options),) = commands("xnet_bone")
    assert file == "xnet_bone.yaml"
    changes = [option for option in options if option != "--set"]
    document = read_document(CATALOG / file, [*PLANNED["xnet_bone"](tmp_path / "data"), *changes])
    plan = load_plan(document, file=file, cache=tmp_path / "cache")
    assert plan.spec.name == "xnet-bone-kfold"
    assert not plan.test_is_fixed
    splits = [plan.split(replicate) for replicate in plan.replicates if replicate.arm == 0]
    assert sorted(row for split in splits for row in split.test) == list(range(16))
    assert all(split.validation and set(split.validation).isdisjoint(split.test) for split in splits)


@pytest.mark.parametrize("name", ["xnet_bone", "localise_then_segment"])
def test_every_published_value_matches_an_arm(name: str, tmp_path: Path) -> None:
    plan = catalog_plan(name, tmp_path)
    assert list(published_warnings(plan.spec, plan.arms)) == []


def test_localisation_errors_of_the_paper_are_those_of_its_validation_and_test_sets() -> None:
    values = {
        str(value.match["split"]): value.value
        for value in read_published(CATALOG / "localise_then_segment.yaml")
        if value.match.get("stage") == "locate"
    }
    assert values == {"validation": 132.16, "test": 206.15}


def test_the_localisation_stage_holds_out_the_official_test_images(tmp_path: Path) -> None:
    plan = catalog_plan("localise_then_segment", tmp_path)
    view = plan.views["centres"]
    (node, *_) = (node for node in plan.nodes.values() if node.step.stage == "locate")
    rows, test = view.stage_rows(node.selection), view.held_out(node.selection)
    assert {view.index.official[row] for row in test.rows} == {"test"}
    assert {view.index.official[row] for row in (*rows.train, *rows.validation)} == {"train"}
