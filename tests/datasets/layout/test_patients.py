"""Patients in the names of images."""

import re

import pytest

from datasets.layout.patients import patient_pattern


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        (["12L", "12R", "13L", "13R"], {"12", "13"}),
        (["a_left", "a_right", "b_left", "b_right"], {"a", "b"}),
        (["patient01_1", "patient01_2", "patient02_1"], {"patient01", "patient02"}),
        (["x_subject-3_a", "x_subject-3_b", "y_subject-4_a"], {"subject-3", "subject-4"}),
        (["patient_1/a", "patient_1/b", "patient_2/a"], {"patient_1", "patient_2"}),
        ([f"{name}_{number}" for name in "rstuvwxy" for number in (1, 2)], set("rstuvwxy")),
    ],
)
def test_strong_evidence_gives_a_pattern(names: list[str], patients: set[str]) -> None:
    found = patient_pattern(names)
    assert found is not None
    matches = [re.search(found[0], name) for name in names]
    assert {match[1] for match in matches if match} == patients


@pytest.mark.parametrize(
    "names",
    [
        ["img_1", "img_2", "img_3"],
        [f"{kind}_{number}" for kind in ("benign", "malignant", "normal") for number in range(1, 7)],
        [f"{name}_{number}" for name in "rstuvwxy" for number in range(13)],
        ["1", "2", "3"],
        ["12L", "13L", "14R"],
        ["patient1", "patient2"],
        ["patient01_1", "patient01_2", "other"],
        ["u_1", "u_7", "v_3", "v_4", "w_9", "w_2"],
        ["2007_000001", "2007_000002", "2008_000001"],
    ],
)
def test_without_strong_evidence_there_is_no_pattern(names: list[str]) -> None:
    assert patient_pattern(names) is None
