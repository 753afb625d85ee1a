"""The JSON schema for editors: current, and consistent with the files of the platform."""

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from study.config.document import read_document
from study.config.json_schema import SCHEMA, make_schema, written
from tests.support.documents import base, compare

CATALOG = sorted((Path(__file__).parents[3] / "study" / "catalog").glob("*.yaml"))
VALIDATOR = Draft202012Validator(make_schema())


def faults(document: dict[str, Any]) -> list[str]:
    return [".".join(map(str, error.absolute_path)) for error in VALIDATOR.iter_errors(document)]


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(make_schema())


def test_the_committed_schema_is_current() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == written(), "run `python -m study.config.json_schema`"


@pytest.mark.parametrize("file", CATALOG, ids=lambda file: file.stem)
def test_catalog_files_agree_with_the_schema(file: Path) -> None:
    assert faults(read_document(file)) == []


def test_short_and_long_forms_agree_with_the_schema() -> None:
    factors = {"segment.loss": [{"dice": 1.0}], "image.size": [64], "baseline": [{"pathway": "none"}]}
    assert faults(compare(**factors)) == []
    assert (
        faults(base({"pathways.one_step": [{"stage": "classify"}, {"stage": "segment", "freeze": ["encoder"]}]})) == []
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": {}},
        {"stages.segment.batchsize": 8},
        {"stages.segment.task": "segmenting"},
        {"stages.classify.class_weights": {}},
        {"data.clinic.source": "phantm"},
        {"compare.fold": 3},
        {"compare.labelled_fraction": [1.5]},
        {"image.size": "large"},
        {"pathways.none": []},
        {"pathways.none": [{"carry": "encoder"}]},
    ],
    ids=str,
)
def test_faults_disagree_with_the_schema(changes: dict[str, Any]) -> None:
    assert faults(base(changes)) != []


def test_a_stage_without_a_task_disagrees_with_the_schema() -> None:
    assert faults(base(without=("stages.segment.task",))) == ["stages.segment"]
