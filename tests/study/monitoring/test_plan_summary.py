"""The lines printed by `study plan`."""

from pathlib import Path

from study.monitoring.plan_summary import summary, summary_text
from study.store.store import Store
from tests.support.documents import Document, base, planned


def augment_lines(changes: Document, folder: Path) -> list[str]:
    text = summary_text(summary(planned(base(changes), folder), Store(folder / "runs"), folder))
    return [line for line in text.splitlines() if line.startswith("augment")]


def test_preset_values_are_printed_once_per_stage(tmp_path: Path) -> None:
    changes: Document = {
        "stages.segment.augment": {"preset": "light", "rotate": 5, "flip": 0.5},
        "stages.boxes.augment": {"preset": "strong", "noise": 0, "hue": 0, "saturation": 0},
        "stages.classify.augment": {"rotate": 5},
    }
    assert sorted(augment_lines(changes, tmp_path)) == [
        "augment      boxes, strong: rotate: 20.0, scale: 0.25, shift: 0.1, elastic: 0.03, brightness: 0.15, "
        "contrast: 0.2, gamma: 0.3, blur: 1.0, low_resolution: 2.0",
        "augment      segment, light: flip: 0.5, rotate: 5.0, scale: 0.1, shift: 0.05, brightness: 0.1, "
        "contrast: 0.1, gamma: 0.1",
    ]


def test_each_compared_preset_has_a_line(tmp_path: Path) -> None:
    changes = {"compare.segment.augment": [{"preset": "light"}, {"preset": "strong"}, {"flip": 0.5}]}
    labels = [line.partition(":")[0] for line in augment_lines(changes, tmp_path)]
    assert labels == ["augment      segment, light", "augment      segment, strong"]


def test_presets_of_strong_views_are_printed_where_there_are_such_views(tmp_path: Path) -> None:
    consistent = {"task": "consistency", "data": "hospital", "steps": 4}
    methods = {"compare.segment.consistency.method": ["mean_teacher", "cross_pseudo"]}
    document = {"stages.segment": consistent, "pathways": {"none": ["segment"]}} | methods
    assert augment_lines(document, tmp_path) == [
        "augment      segment.consistency.strong, photometric: hue: 0.05, saturation: 0.5, brightness: 0.25, "
        "contrast: 0.4, gamma: 0.3, blur: 2.0"
    ]


def test_stages_without_a_preset_have_no_line(tmp_path: Path) -> None:
    assert augment_lines({"stages.segment.augment": {"rotate": 5}}, tmp_path) == []


def annotation_lines(changes: Document, place: Path) -> list[str]:
    lines = summary_text(summary(planned(base(changes), place), Store(place / "runs"), place)).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("annotation ")]
    return lines[starts[0] : starts[0] + 4] if starts else []


def test_hours_of_annotation_are_printed_for_each_arm_and_fraction(tmp_path: Path) -> None:
    changes: Document = {"data.hospital.annotation_minutes": {"mask": 30}, "compare.hours": [4, 20]}
    assert annotation_lines(changes, tmp_path) == [
        "annotation   none, one_step, two_step: 3 h at 50 %, 5 h at 100 %",
        "             budget of 4 h: 3 of 3 arms can be compared",
        "             budget of 20 h: 0 of 3 arms can be compared",
        "             annotated already, at no cost: clinic",
    ]


def test_without_minutes_no_hours_are_printed(tmp_path: Path) -> None:
    assert annotation_lines({}, tmp_path) == []
