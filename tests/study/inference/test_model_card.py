"""The model card of a network that learned from pseudo-labels."""

from pathlib import Path

from datasets.settings import ImageSettings
from study.inference.model_card import _needs_opencv, _pseudo_labels
from study.store.store import Store
from study.training.load_model import open_model
from tests.study.training.test_pseudo_labels import document, last, trained
from tests.support.finished import write_pictures
from tests.support.tiny import planned


def test_the_model_card_states_who_labelled_which_images(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", overlapping=False)
    plan = planned(document(tmp_path / "data"), tmp_path / "cache")
    trained(plan, tmp_path / "runs", tmp_path / "cache")
    student = plan.nodes[last(plan)]
    images = len(plan.views["hospital"].stage_rows(student.selection).unlabelled)
    teacher, card = (_pseudo_labels(open_model(Store(tmp_path / "runs"), digest)) for digest in (
        student.teachers[0], student.digest,
    ))  # fmt: skip
    assert teacher == ""
    assert card == f" It also learned from {images} images without masks, with pseudo-labels predicted by 2 networks."


def test_opencv_is_needed_to_equalise_and_to_prepare_colours() -> None:
    for channels, prepare, needed in (
        (1, {"gamma": 2}, False),
        (1, {"equalise": {}}, True),
        (3, {}, False),
        (3, {"gamma": 2}, True),
    ):
        assert _needs_opencv(ImageSettings.model_validate({"channels": channels, "prepare": prepare})) == needed
