"""The contact sheet: which images it shows, and which of their annotations are visible."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.checks.contact import COLOURS, chosen_rows, draw_contact
from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from tests.support.folder import write_folder
from tests.support.pictures import picture, save


@pytest.fixture
def opened(tmp_path: Path) -> tuple[Source, Index]:
    source = open_source(FolderSettings(root=write_folder(tmp_path / "data")))
    return source, source.index(tmp_path / "cache")


def pixels_of(sheet: Path, colour: str) -> int:
    """Count the pixels of a drawn colour; antialiased edges are not counted."""
    colour_values = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    with Image.open(sheet) as file:
        return int((np.asarray(file.convert("RGB")) == colour_values).all(axis=2).sum())


def visible_structures(opened: tuple[Source, Index], name: str, path: Path) -> set[str]:
    """Draw one image; return the structures that are visible."""
    source, index = opened
    draw_contact(source, index, [index.ids.index(name)], path)
    colours = zip(("disc", "cup", "fovea"), COLOURS, strict=False)
    return {structure for structure, colour in colours if pixels_of(path, colour)}


def test_images_are_spread_over_the_usable_ones_with_annotations(opened: tuple[Source, Index]) -> None:
    index = opened[1]
    assert [index.ids[row] for row in chosen_rows(index, 5)] == ["anna-1", "anna-2", "ben", "carl", "dora"]
    assert [index.ids[row] for row in chosen_rows(index, 3)] == ["anna-1", "ben", "dora"]
    assert chosen_rows(replace(index, faults=["x", *index.faults[1:]]), 24) == [1, 2, 3, 4, 5]
    assert chosen_rows(replace(index, faults=["x"] * 6), 24) == []


@pytest.mark.parametrize(
    ("name", "visible"),
    [("ben", {"disc", "cup", "fovea"}), ("dora", {"disc", "cup"}), ("emil", set())],
    ids=["masks, boxes and centres", "masks and a box", "nothing"],
)
def test_annotations_of_an_image_are_drawn_and_named(
    opened: tuple[Source, Index], name: str, visible: set[str], tmp_path: Path
) -> None:
    assert visible_structures(opened, name, tmp_path / "sheet.png") == visible


def test_a_contour_runs_through_the_outermost_pixels_of_its_mask() -> None:
    from matplotlib.figure import Figure

    from datasets.checks.contact import _contours

    panel = Figure().subplots()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 1
    _contours(panel, mask, "red")
    (line,) = panel.lines
    x, y = np.asarray(line.get_data())
    assert (x.min(), x.max(), y.min(), y.max()) == (20.5, 49.5, 10.5, 29.5)


def test_a_mask_that_disappears_when_resized_is_still_drawn() -> None:
    from matplotlib.figure import Figure

    from datasets.checks.contact import _contours

    panel = Figure().subplots()
    mask = np.zeros((2000, 2000), np.uint8)
    mask[1000, 1000:1003] = 1
    _contours(panel, mask, "red")
    assert len(panel.lines) == 1


def test_the_sizes_of_the_drawn_images_are_reported(opened: tuple[Source, Index], tmp_path: Path) -> None:
    assert draw_contact(*opened, [0, 1], tmp_path / "new" / "sheet.png") == [(64, 48), (64, 48)]


def test_a_contact_sheet_leaves_no_settings_of_matplotlib_behind(opened: tuple[Source, Index], tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_contact(*opened, [0], tmp_path / "sheet.png")
    assert dict(mpl.rcParams) == before


def test_any_class_name_is_drawn_without_messages_on_stderr(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(3):
        save(picture(number), root / "images" / f"{number}.png")
        for name in ("\u80ba", "$\\bad$ heart", "a_b^c"):
            save(np.eye(48, 64, k=number, dtype=np.uint8) * 255, root / "masks" / name / f"{number}.png")
    words = ["data", "check", "folder", str(root), "--output", str(tmp_path / "sheet.png")]
    command = [sys.executable, "-m", "study", *words, "--cache", str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "sheet.png").exists()
    # A busy machine reports the progress of reading.
    assert [line for line in ended.stderr.splitlines() if not line.startswith("reading data.folder: ")] == []
