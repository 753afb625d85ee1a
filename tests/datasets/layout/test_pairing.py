"""Which files are images, and which are their masks."""

from pathlib import Path

import pytest

from datasets.errors import DataError
from datasets.layout.files import list_files
from datasets.layout.pairing import Pairing, pair
from tests.support.layouts import blob
from tests.support.pictures import picture, save

NAMES = [f"{number:02d}" for number in range(1, 7)]


def paired(root: Path, image: str, *masks: str, names: list[str] = NAMES) -> Pairing:
    """Write images and masks at paths with `{name}`, and pair them."""
    for number, name in enumerate(names):
        save(picture(number), root / image.replace("{name}", name))
        for other, mask in enumerate(masks):
            save(blob(number + 10 * other, value=255), root / mask.replace("{name}", name))
    return pair(list_files(root))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/{name}.png", "masks/{name}.png"),
        ("images/{name}.jpg", "GT/{name}.bmp"),
        ("{name}.png", "{name}_mask.png"),
        ("{name}.png", "{name}-label.png"),
        ("{name}.tif", "{name}_x.tif"),
        ("photos/{name}.jpg", "contour_things/{name}.png"),
        ("a/b/c/{name}.png", "a/b/Annotations/{name}_gt.png"),
        ("{name}/image.png", "{name}/mask.png"),
    ],
)
def test_pairs_are_found_by_folders_and_names(image: str, mask: str, tmp_path: Path) -> None:
    pairing = paired(tmp_path, image, mask)
    assert (pairing.images.text, {name: pattern.text for name, pattern in pairing.masks.items()}) == (image, {"": mask})
    assert (len(pairing.image_paths), len(pairing.mask_paths), pairing.paired) == (6, 6, 6)


@pytest.mark.parametrize(
    ("image", "mask"),
    [("img/img_{name}.png", "msk/mask_{name}.png"), ("x/{name}_training.png", "y/{name}_manual1.png")],
)
def test_text_in_all_names_is_outside_of_the_name(image: str, mask: str, tmp_path: Path) -> None:
    pairing = paired(tmp_path, image, mask)
    assert (pairing.images.text, pairing.masks[""].text, pairing.paired) == (image, mask, 6)


def test_parts_at_the_end_of_names_are_read_like_their_folders(tmp_path: Path) -> None:
    for part, names in (("training", NAMES[:4]), ("test", NAMES[4:])):
        for number, name in enumerate(names):
            save(picture(number), tmp_path / part / "images" / f"{name}_{part}.tif")
            save(blob(number, value=255), tmp_path / part / "1st_manual" / f"{name}_manual1.gif")
    pairing = pair(list_files(tmp_path))
    assert pairing.images.text == "{part}/images/{name}_{part}.tif"
    assert {match.official for match in pairing.matches().values()} == {"train", "test"}
    assert pairing.paired == 6


def test_numbers_after_the_name_of_a_folder_count_its_images(tmp_path: Path) -> None:
    names = [
        f"{case}/{case}_{number}" for case in ("TCGA_CS_4941", "TCGA_DU_5849", "TCGA_DU_5851") for number in (1, 2)
    ]
    pairing = paired(tmp_path, "mri/{name}.tif", "mri/{name}_mask.tif", names=names)
    assert (pairing.images.text, pairing.masks[""].text) == ("mri/**/{name}.tif", "mri/**/{name}_mask.tif")
    assert pairing.paired == 6


def test_folders_of_categories_belong_to_the_name(tmp_path: Path) -> None:
    names = [f"{kind}/{kind} ({number})" for kind in ("benign", "malignant") for number in (1, 2, 3)]
    pairing = paired(tmp_path, "set/{name}.png", "set/{name}_mask.png", names=names)
    assert (pairing.images.text, pairing.masks[""].text) == ("set/**/{name}.png", "set/**/{name}_mask.png")


def test_masks_of_the_field_of_view_are_left_out_beside_annotators(tmp_path: Path) -> None:
    pairing = paired(
        tmp_path, "images/{name}.tif", "1st_manual/{name}_manual1.gif", "2nd_manual/{name}_manual2.gif",
        "mask/{name}_mask.gif",
    )  # fmt: skip
    assert list(pairing.masks) == ["manual1", "manual2"]
    assert pairing.left_out == ["mask/{name}_mask.gif"]


def test_folders_of_annotators_are_told_from_those_of_classes(tmp_path: Path) -> None:
    annotators = paired(tmp_path / "a", "images/{name}.png", "expert1/{name}.png", "expert2/{name}.png")
    assert list(annotators.masks) == ["expert1", "expert2"]
    classes = paired(tmp_path / "b", "images/{name}.png", "masks/heart/{name}.png", "masks/lung/{name}.png")
    assert classes.masks[""].text == "masks/{class}/{name}.png"
    ends = paired(tmp_path / "c", "images/{name}.png", "masks/{name}_HE.png", "masks/{name}_MA.png")
    assert ends.masks[""].text == "masks/{name}_{class}.png"


def test_files_beside_images_and_masks_are_named(tmp_path: Path) -> None:
    for number in range(3):
        save(picture(30 + number), tmp_path / "extra" / f"photo {number}.png")
    names = [f"{number:02d}" for number in range(30)]
    pairing = paired(tmp_path, "images/{name}.png", "masks/{name}.png", names=names)
    assert pairing.paired == 30
    assert [text for text in pairing.left_out if text.startswith("extra/")]


def test_names_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    for number in range(4):
        save(picture(number), tmp_path / "images" / f"{'abcd'[number]}.png")
        save(blob(number), tmp_path / "masks" / f"{number}.png")
    with pytest.raises(DataError, match="whose names do not fit together"):
        pair(list_files(tmp_path))
