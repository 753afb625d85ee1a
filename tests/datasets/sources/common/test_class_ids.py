"""The class of each id, and the allowed class names."""

from pathlib import Path

import numpy as np
import pytest

from datasets.errors import DataError
from datasets.sources.common.class_ids import class_ids
from tests.support.folder import opened
from tests.support.pictures import picture, save

ROOT = Path("data")


def bits(*ids: int) -> int:
    return sum(1 << number for number in ids)


def folder(root: Path, ids: list[list[int]], *, classes: str = "") -> Path:
    """Write one image per list, whose mask contains these ids."""
    for number, image_ids in enumerate(ids):
        mask = np.zeros((48, 64), np.uint8)
        for place, value in enumerate(image_ids):
            mask[4 * place : 4 * place + 3, 5 + number : 20] = value
        save(picture(number), root / "images" / f"{number}.png")
        save(mask, root / "masks" / f"{number}.png")
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


@pytest.mark.parametrize("value", [1, 7, 128, 255])
@pytest.mark.parametrize("classes", ["", "lung\n"])
def test_0_and_one_other_id_are_one_class(tmp_path: Path, value: int, classes: str) -> None:
    source, index = opened(folder(tmp_path / "data", [[value], [], [value]], classes=classes))
    assert index.classes == (("lung",) if classes else (f"class_{value}",))
    assert [int(source.masks(row).max()) for row in range(3)] == [1, 0, 1]
    assert [bool(index.shows(row)) for row in range(3)] == [True, False, True]
    assert not any(index.fault(row) for row in range(3))


def test_only_ids_that_occur_are_classes(tmp_path: Path) -> None:
    source, index = opened(folder(tmp_path / "data", [[2, 40], [40], [2]]))
    assert index.classes == ("class_2", "class_40")
    assert [np.unique(source.masks(row)).tolist() for row in range(3)] == [[0, 1, 2], [0, 2], [0, 1]]
    assert [sorted(index.shows(row)) for row in range(3)] == [["class_2", "class_40"], ["class_40"], ["class_2"]]


def test_an_id_beside_255_is_not_a_class_of_a_list_of_one(tmp_path: Path) -> None:
    _, index = opened(folder(tmp_path / "data", [[1, 255], [1]], classes="lung\n"))
    assert "holds the class id 255; allowed: 0 (background) to 1" in index.fault(0)


def test_object_numbers_are_refused_with_the_remedy(tmp_path: Path) -> None:
    counts = [[1, 2, 3], [1, 2, 3, 4, 5], [1], [1, 2]]
    with pytest.raises(DataError, match=r"numbers the objects of each image \(1 to 5\).*write 1 for each object"):
        opened(folder(tmp_path / "data", counts))
    _, index = opened(folder(tmp_path / "data", counts, classes="a\nb\nc\nd\ne\n"))
    assert len(index.classes) == 5


@pytest.mark.parametrize("images", [4, 60, 1000])
def test_object_numbers_are_recognised_in_data_of_any_size(images: int) -> None:
    objects = np.random.default_rng(0).integers(1, 21, images).tolist()
    with pytest.raises(DataError, match="numbers the objects of each image"):
        class_ids([bits(*range(number + 1)) for number in objects], None, ROOT)


@pytest.mark.parametrize("masks", [[(1, 2, 3, 4)] * 6, [(1,), (1, 3), (1, 2, 3, 4)], [(1, 2), (1, 2, 3), (1,)]])
def test_classes_are_not_mistaken_for_object_numbers(masks: list[tuple[int, ...]]) -> None:
    used = sorted({number for ids in masks for number in ids})
    assert class_ids([bits(0, *ids) for ids in masks], None, ROOT) == {f"class_{number}": number for number in used}


@pytest.mark.parametrize("name", ["macro", "Micro", "weighted", "background", "Background"])
def test_reserved_names_of_averages_and_background_are_refused_for_all_classes(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path / "ids", [[1], [2]], classes=f"{name}\nlung\n")
    with pytest.raises(DataError, match=rf"classes\.txt has the class '{name}'.*; allowed: "):
        opened(root)
    (root / "classes.txt").unlink()
    for number in range(2):
        for folder_name in (name, "lung"):
            save(np.eye(48, 64, dtype=np.uint8), tmp_path / "folders" / "masks" / folder_name / f"{number}.png")
        save(picture(number), tmp_path / "folders" / "images" / f"{number}.png")
    with pytest.raises(DataError, match=rf"has the class '{name}'.*; allowed: "):
        opened(tmp_path / "folders")
    assert opened(tmp_path / "folders", classes=["lung"])[1].classes == ("lung",)
