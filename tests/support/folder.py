"""A user's own data in the `folder` layout."""

from pathlib import Path

import numpy as np

from datasets.source import Index, Source
from datasets.sources import FolderSettings, open_source
from tests.support.pictures import picture, save

STEMS = ("anna-1", "anna-2", "ben", "carl", "dora", "emil")


def write_folder(root: Path, *, overlapping: bool = False) -> Path:
    """Six images of five patients in four formats; five have masks, most have the other annotations."""
    for number, stem in enumerate(STEMS):
        suffix = ("png", "jpg", "tif", "jpeg")[number % 4]
        save(picture(number), root / "images" / f"{stem}.{suffix}")
        if stem != "emil":
            _write_masks(root, stem, number, overlapping=overlapping)
    (root / "classes.txt").write_text("disc\ncup\n\n")
    (root / "labels.csv").write_text("image,ill,old\nanna-1,1,0\nanna-2.jpg,0,\nben,,1\ncarl,,\ndora,1.0,0.0\n")
    (root / "boxes.csv").write_text(
        "image,x,y,width,height,label\nben,4,5,20,10,disc\nben,1,2,3,4,cup\ndora,0,0,64,48,disc\n"
    )
    (root / "centres.csv").write_text("image,x,y,structure\nben,14.5,10,disc\nben,2,3,fovea\nanna-1,5,6,disc\n")
    cases = [f"{stem},{stem.split('-')[0]},{'healthy' if stem < 'c' else 'ill'}" for stem in STEMS]
    (root / "cases.csv").write_text("\n".join(["image,patient,category", *cases]) + "\n")
    return root


def opened(root: Path, **settings: object) -> tuple[Source, Index]:
    """Return the source of a folder and its index; its cache is beside the folder."""
    source = open_source(FolderSettings.model_validate({"root": root} | settings))
    return source, source.index(root.parent / "cache")


def _write_masks(root: Path, stem: str, number: int, *, overlapping: bool) -> None:
    disc, cup = np.zeros((2, 48, 64), np.uint8)
    disc[10:30, 10 + number : 40] = 1
    cup[15:20, 15:25] = 1
    if overlapping:
        save(disc * 255, root / "masks" / "disc" / f"{stem}.png")
        if number % 2:
            save(cup * 255, root / "masks" / "cup" / f"{stem}.png")
    else:
        save(np.where(cup > 0, 2, disc).astype(np.uint8), root / "masks" / f"{stem}.png")
