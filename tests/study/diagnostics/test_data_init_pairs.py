"""`study data init`: which files become images and masks where names allow several readings."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.study.diagnostics.test_data_init import command, read_data, refusal
from tests.support.layouts import blob, paired_folders
from tests.support.layouts_pairs import (
    attributes,
    boxes_in_coco,
    fields_of_view,
    folds_of_masks,
    masks_of_objects,
    modalities,
    numbered_patients,
    pairs,
    second_masks,
    sides,
    slices_of_patients,
)
from tests.support.pictures import picture, save

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("working_directory")


def written(capsys: Capture, place: str = "data") -> tuple[dict[str, object], str]:
    """Write the study file of a place that is read without an error; return its settings and what was printed."""
    assert command("data", "init", place, "--force") == 0, capsys.readouterr().err
    return read_data(Path(f"{place}.yaml"))[0], capsys.readouterr().out


@pytest.mark.parametrize(
    "ends", [("1", "2", "3"), ("s1", "s2", "s3"), ("2CH_ED", "2CH_ES", "4CH_ED")], ids=["numbers", "words", "views"]
)
def test_slices_named_after_their_folder_are_images_with_masks(ends: tuple[str, ...], capsys: Capture) -> None:
    slices_of_patients(Path("data"), ends)
    settings, _ = written(capsys)
    assert (settings["images"], settings["masks"]) == ("**/{name}.tif", "**/{name}_mask.tif")
    _, source, index = read_data(Path("data.yaml"))
    assert (len(index), index.classes) == (15, ("foreground",))
    assert np.array_equal(source.masks(0) > 0, blob(0) > 0)


def test_one_of_several_modalities_is_read_and_the_other_named(capsys: Capture) -> None:
    modalities(Path("data"))
    settings, out = written(capsys)
    assert settings["masks"] == "**/{name}_seg.png"
    assert len(read_data(Path("data.yaml"))[2]) == 5
    assert {str(settings["images"]), "**/{name}_t1ce.png"} <= {"**/{name}_flair.png", "**/{name}_t1ce.png"}
    assert "_t1ce.png" in out


def test_modalities_in_folders_are_named_where_they_share_masks(capsys: Capture) -> None:
    pairs(Path("data"), "t1/{name}.png", {"masks/{name}.png": 0})
    pairs(Path("data"), "t2/{name}.png", {})
    settings, out = written(capsys)
    assert (settings["images"], settings["masks"]) == ("t1/{name}.png", "masks/{name}.png")
    assert "images are read from t1/{name}.png; t2/{name}.png also fit the masks" in out


def test_categories_with_a_second_mask_are_read(capsys: Capture) -> None:
    second_masks(Path("data"))
    settings, out = written(capsys)
    assert (settings["images"], settings["masks"]) == ("**/{name}.png", "**/{name}_mask.png")
    assert "24 of 25 images have a mask" in out
    assert "benign/benign (4)_mask_1.png: images without a mask that look like masks" in out


def test_a_reading_of_few_images_is_refused_with_both_numbers(capsys: Capture) -> None:
    pairs(Path("data"), "photos/{name}.png", {"masks/{name}.png": 0}, count=3)
    for number in range(20):
        save(picture(50 + number), Path(f"data/more/scan {chr(97 + number)}.png"))
    line = refusal("data", capsys)
    assert "3 of 23 images would be read, as photos/{name}.png, and others (more/scan {name}.png) not" in line


@pytest.mark.parametrize(("other", "masks"), [("vessels", 12), ("1st_manual", 7), ("labels", 12)])
def test_masks_of_the_field_of_view_are_not_the_masks(other: str, masks: int, capsys: Capture) -> None:
    fields_of_view(Path("data"), other, masks)
    settings, out = written(capsys)
    assert settings["masks"] == f"{other}/{{name}}.png"
    assert f"masks are read from {other}/{{name}}.png; mask/{{name}}_mask.png also fit the images" in out


def test_predictions_are_no_class(capsys: Capture) -> None:
    pairs(Path("data"), "images/{name}.png", {"labels/{name}.png": 0, "predictions/{name}.png": 3})
    settings, out = written(capsys)
    assert settings["masks"] == "labels/{name}.png"
    assert "predictions/, which are not read" in out


def test_predictions_beside_folders_of_classes_are_refused(capsys: Capture) -> None:
    masks = {f"{name}/{{name}}.png": 20 * seed for seed, name in enumerate(("heart", "lung", "predictions"))}
    pairs(Path("data"), "images/{name}.png", masks)
    assert "data/predictions/00.png would be read as {class}/{name}.png" in refusal("data", capsys)
    shutil.rmtree("data/predictions")
    assert written(capsys)[0]["masks"] == "{class}/{name}.png"


def test_formats_are_no_classes(capsys: Capture) -> None:
    pairs(Path("data"), "images/{name}.jpg", {"masks/{name}.png": 0, "masks/{name}.jpg": 0})
    settings, out = written(capsys)
    assert settings["masks"] == "masks/{name}.png"
    assert "masks/{name}.jpg also fit the images" in out


def test_numbers_and_kinds_of_files_are_no_classes(capsys: Capture) -> None:
    pairs(Path("data"), "images/{name}.png", {"gt/{name}_color.png": 0, "gt/{name}_labelIds.png": 0})
    assert "whose names do not fit together ('' against '_color')" in refusal("data", capsys)
    pairs(Path("other"), "images/{name}.png", {"masks/1/{name}.png": 0, "masks/2/{name}.png": 20})
    assert "00 has two masks, masks/1/00.png and masks/2/00.png" in refusal("other", capsys)


def test_classes_of_several_words_follow_a_common_text(capsys: Capture) -> None:
    attributes(Path("data"))
    settings, _ = written(capsys)
    assert settings["masks"] == "truth/{name}_attribute_{class}.png"
    assert read_data(Path("data.yaml"))[2].classes == ("milia_cyst", "net")


def test_folders_above_masks_without_images_have_no_meaning(capsys: Capture) -> None:
    folds_of_masks(Path("data"))
    settings, _ = written(capsys)
    assert settings["masks"] == "*/masks/{class}/{name}.gif"
    _, source, index = read_data(Path("data.yaml"))
    assert (len(index), index.classes) == (12, ("heart", "left lung"))
    assert np.array_equal(source.masks(3)[1] > 0, blob(23) > 0)


def test_several_masks_per_image_are_named(capsys: Capture) -> None:
    masks_of_objects(Path("data"))
    line = refusal("data", capsys)
    assert "several masks per image, one for each object, such as 3 for 00000000/images/00000000.png" in line
    assert "combine the masks of each image" in line


def test_folders_of_sides_are_no_classes(capsys: Capture) -> None:
    sides(Path("data"))
    assert "left/0.png and masks such as left_mask/0.png" in refusal("data", capsys)
    shutil.rmtree("data/right")
    shutil.rmtree("data/right_mask")
    assert written(capsys)[0]["masks"] == "left_mask/{name}.png"


def test_characters_of_patterns_in_folder_names_are_refused(capsys: Capture) -> None:
    for name in ("scans{x}", "scans*"):
        shutil.rmtree("data", ignore_errors=True)
        pairs(Path("data"), f"{name}/images/{{name}}.png".replace("{x}", "(x)"), {"masks/{name}.png": 0})
        Path("data", name.replace("{x}", "(x)")).rename(Path("data", name))
        assert f"data/{name} has one of the characters {{ }} * in its name" in refusal("data", capsys)


def test_masks_with_unusual_values_are_masks_by_their_name(capsys: Capture) -> None:
    pairs(Path("data"), "images/{name}.png", {})
    for number in range(12):
        save(picture(90 + number), Path(f"data/masks/{number:02d}.jpg"))
    assert "masks are JPEG files with more than two values" in refusal("data", capsys)


def test_too_many_kinds_of_files_are_refused(capsys: Capture) -> None:
    for number in range(70):
        for count in range(2):
            save(blob(number), Path(f"data/masks {chr(97 + number % 26)}{number // 26}/{count}.png"))
    assert "has 70 kinds of files by folders and endings of names" in refusal("data", capsys)


@pytest.mark.parametrize("content", ["boxes", "Label Studio", "LabelMe"])
def test_annotations_beside_masks_of_all_images_are_named(content: str, capsys: Capture) -> None:
    pairs(Path("data"), "images/{name}.png", {"masks/{name}.png": 0})
    path = Path("data/extra.json")
    if content == "boxes":
        boxes_in_coco(path)
    elif content == "LabelMe":
        path.write_text(json.dumps({"shapes": [], "imagePath": "00.png"}))
    else:
        path.write_text('[{"data": {}, "annotations": []}]')
    settings, out = written(capsys)
    assert settings["source"] == "folder"
    assert "annotations in extra.json, which are not read: nearly all images have masks" in out


def test_folders_of_slices_are_named_as_possible_patients(capsys: Capture) -> None:
    numbered_patients(Path("data"))
    settings, out = written(capsys)
    assert "patients" not in settings
    assert 'images lie in 9 folders (000, 001, 002, ...): if these are patients, set `patients: "^(.+)/"`' in out
    assert command("plan", "data.yaml", '--set=data.data.patients="^(.+)/"') == 0
    Path("data.yaml").write_text(
        Path("data.yaml").read_text().replace("    root:", '    patients: "^(.+)/"\n    root:')
    )
    assert len(set(read_data(Path("data.yaml"))[2].patients)) == 9


def test_endings_of_files_without_images_and_masks_are_named(capsys: Capture) -> None:
    Path("data").mkdir()
    for number in range(3):
        Path(f"data/{number}.ppm").write_bytes(b"P6")
    assert "and no image (.ppm: 3)" in refusal("data", capsys)
    assert "convert them to PNG" in refusal("data", capsys)
    paired_folders(Path("eyes"))
    shutil.rmtree("eyes/masks")
    Path("eyes/0.xml").write_text("<Annotations/>")
    assert "and no masks (other files: .xml: 1)" in refusal("eyes", capsys)
