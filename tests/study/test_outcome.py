"""What a reader is told of results beside their numbers."""

from pathlib import Path

import pytest

from study.outcome import _notes
from tests.data.tiny import planned, tiny


@pytest.mark.parametrize(("asked", "said"), [([7], "whole patients: 8 images labelled on average"), ([8], "")])
def test_a_number_of_images_that_tears_no_patient_apart_is_said(asked: list[int], said: str, tmp_path: Path) -> None:
    changes = {"compare.labelled_images": asked, "validation.min_cases": 1, "compare.pathway": ["none"]}
    document = tiny(changes)
    del document["compare"]["labelled_fraction"]
    notes = set(_notes(planned(document, tmp_path)).values())
    assert notes == ({said} if said else set())


@pytest.mark.parametrize(("fraction", "said"), [(0.5, False), (1.0, True)])
def test_adversarial_training_without_unlabelled_images_is_said(fraction: float, said: bool, tmp_path: Path) -> None:
    play = {"task": "adversarial", "data": "hospital", "steps": 2, "batch_size": 2}
    changes = {"stages.play": play, "pathways": {"none": ["play"]}, "compare.labelled_fraction": [fraction]}
    notes = _notes(planned(tiny(changes), tmp_path))
    assert any("no mask is hidden" in note for note in notes.values()) == said


def test_what_nothing_decides_without_validation_images_is_said(tmp_path: Path) -> None:
    changes = {"stages.segment.schedule": {"name": "plateau"}, "validation.min_cases": 50, "compare.pathway": ["none"],
               "stages.segment.class_threshold": {"class": "heart", "false_positive_rate": 0.1}}  # fmt: skip
    (note,) = set(_notes(planned(tiny(changes), tmp_path)).values())
    assert "plateau never lowers the learning rate; no threshold of heart is chosen" in note
