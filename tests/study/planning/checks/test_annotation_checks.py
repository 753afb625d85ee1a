"""Costs of annotation that do not match the annotation used by the stages."""

from pathlib import Path

import pytest

from study.errors import ConfigError
from tests.support.documents import Document, base, planned


def problems(changes: Document, place: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        planned(base(changes), place)
    return str(refused.value).splitlines()


def test_a_used_kind_of_annotation_requires_its_minutes(tmp_path: Path) -> None:
    assert problems({"data.clinic.annotation_minutes": {"class": 0.1, "mask": 8}}, tmp_path) == [
        "study.yaml: data.clinic.annotation_minutes: is {mask: 8.0, class: 0.1}, but stage boxes reads box annotation "
        "of clinic; allowed: minutes of every kind that is read; add box"
    ]


def test_unused_kinds_require_no_minutes(tmp_path: Path) -> None:
    changes = {"data.hospital.annotation_minutes": {"mask": 8}, "compare.hours": [10, 20]}
    assert planned(base(changes), tmp_path).spec.compare.hours == (10.0, 20.0)


@pytest.mark.parametrize(("minutes", "path"), [({"mask": -1}, ".mask"), ({"masks": 1}, ".masks"), (8, "")])
def test_minutes_are_non_negative_numbers_by_kind(minutes: object, path: str, tmp_path: Path) -> None:
    (line,) = problems({"data.hospital.annotation_minutes": minutes, "compare.hours": [1]}, tmp_path)
    assert line.startswith(f"study.yaml: data.hospital.annotation_minutes{path}: ")
    assert "allowed" in line


def test_budgets_require_a_data_set_with_a_cost(tmp_path: Path) -> None:
    assert problems({"compare.hours": [10, 20]}, tmp_path) == [
        "study.yaml: compare.hours: is [10.0, 20.0], but no data set has annotation_minutes; allowed: with the minutes "
        "of at least one data set; add them, or remove hours"
    ]


@pytest.mark.parametrize("hours", [[0], [-2], [10, 10], 10])
def test_budgets_are_distinct_positive_numbers(hours: object, tmp_path: Path) -> None:
    (line,) = problems({"compare.hours": hours, "data.hospital.annotation_minutes": {"mask": 8}}, tmp_path)
    assert line.startswith("study.yaml: compare.hours")
