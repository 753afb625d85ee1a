from pathlib import Path

import numpy as np
import pytest

from datasets.checks.visible import classes_at
from datasets.settings import ImageSettings
from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from tests.support.pictures import picture, save


def write(root: Path, *, overlapping: bool) -> tuple[Source, Index]:
    """Write four images with a disc and a line one pixel wide at the columns 4, 5, 6, 7."""
    for number in range(4):
        disc, line = np.zeros((2, 64, 64), np.uint8)
        disc[20:40, 20:40] = 1
        line[:, 4 + number] = 1
        save(picture(number, height=64), root / "images" / f"{number}.png")
        if overlapping:
            save(disc * 255, root / "masks" / "disc" / f"{number}.png")
            save(line * 255, root / "masks" / "line" / f"{number}.png")
        else:
            save(disc + 2 * line, root / "masks" / f"{number}.png")
    if not overlapping:
        (root / "classes.txt").write_text("disc\nline\n")
    source = open_source(FolderSettings(root=root))
    return source, source.index(root.parent / "cache")


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_line_is_visible_only_where_nearest_neighbour_sampling_meets_it(tmp_path: Path, overlapping: bool) -> None:
    source, index = write(tmp_path / "data", overlapping=overlapping)
    visible = classes_at(source, index, ImageSettings(size=16), tmp_path / "cache")
    # A pixel of 16 is sampled at the middle of 4: at column 6 of 4 to 7.
    assert ["line" in names for names in visible] == [False, False, True, False]
    assert all("disc" in names for names in visible)
    assert all(names == {"disc", "line"} for names in classes_at(source, index, ImageSettings(size=64), tmp_path))


def test_masks_are_decoded_once_and_again_after_a_change(tmp_path: Path) -> None:
    source, index = write(tmp_path / "data", overlapping=False)
    progress: list[tuple[int, int]] = []

    def read() -> int:
        progress.clear()
        classes_at(source, index, ImageSettings(size=16), tmp_path / "cache", lambda *done: progress.append(done))
        return len(progress)

    assert (read(), read()) == (4, 0)
    for file in (tmp_path / "cache" / "visible").iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    assert read() == 4
    save(np.ones((64, 64), np.uint8), tmp_path / "data" / "masks" / "2.png")
    source = open_source(FolderSettings(root=tmp_path / "data"))
    index = source.index(tmp_path / "cache")
    assert read() == 1
