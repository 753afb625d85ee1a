"""The real images, if available."""

import os
from pathlib import Path

import numpy as np
import pytest

from datasets.cache.manifest import thumbnail
from datasets.checks.findings import check
from datasets.checks.leakage import MAX_HASH_DISTANCE, matches
from datasets.decoding.decode import SUFFIXES, read
from datasets.source import Index, Source
from datasets.sources import CcxsSettings, CovidLungBoxesSettings, open_source

DATA = Path(__file__).parents[2] / os.environ.get("STUDY_REAL_DATA", "../shared/data")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}; set STUDY_REAL_DATA"),
]

Opened = tuple[Source, Index]

REPUBLISHED = {  # the same radiographs under different patient ids in the two sets, compared by eye
    ("16660_2_1.jpg", "covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards-admission.jpg"),
    ("16660_4_1.jpg", "covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards-day-2.jpg"),
    ("16660_5_1.jpg", "covid-19-rapidly-progressive-acute-respiratory-distress-syndrome-ards-day-3.jpg"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ccxs(cache: Path) -> Opened:
    source = open_source(CcxsSettings(root=DATA / "ccxs"))
    return source, source.index(cache)


@pytest.fixture(scope="module")
def boxes(cache: Path) -> Opened:
    source = open_source(CovidLungBoxesSettings(root=DATA / "gb-lung-boxes"))
    return source, source.index(cache)


def test_ccxs_has_100_images_of_73_patients_with_13_classes_and_no_faults(ccxs: Opened) -> None:
    _, index = ccxs
    assert (len(index), len(set(index.patients)), len(index.classes)) == (100, 73, 13)
    assert all(index.annotation_digests["masks"])
    assert check(index) == []


def test_ccxs_masks_have_the_published_frequencies(ccxs: Opened) -> None:
    source, index = ccxs
    names = [box.name for row in range(100) for box in source.boxes(row)]
    labels = dict(zip(index.labels, np.sum([source.labels(row) for row in range(100)], axis=0), strict=True))
    assert len(names) == 588
    assert (names.count("Monitoring Probes"), labels["Monitoring Probes"]) == (12, 26)
    assert (labels["Right Lung"], labels["Left Lung"], labels["Pneumothorax"]) == (99, 99, 1)


def test_ccxs_masks_fill_the_boxes_of_their_table(ccxs: Opened) -> None:
    source, index = ccxs
    row = index.ids.index("nejmc2001573_f1b.jpeg")
    masks = source.masks(row)
    assert masks.shape[1:] == source.image(row).shape[:2]
    for box in source.boxes(row):
        mask = masks[index.classes.index(box.name)]
        assert mask[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)].any(axis=1).all()


def test_the_lung_boxes_have_148_images_with_a_right_and_a_left_lung(boxes: Opened) -> None:
    source, index = boxes
    assert (len(index), check(index)) == (148, [])
    assert all({box.name for box in source.boxes(row)} == {"Right Lung", "Left Lung"} for row in range(148))
    assert sum(not offer for offer in index.annotation_digests["labels"]) == 14


def test_the_leak_check_reports_five_images_of_shared_patients_and_three_republished_ones(
    ccxs: Opened, boxes: Opened
) -> None:
    matched = matches(boxes[1], ccxs[1])
    pairs = {(m.kind, boxes[1].ids[m.row], ccxs[1].ids[m.target_row]) for m in matched}
    assert len({image for kind, image, _ in pairs if kind == "patient"}) == 5
    assert {(image, target) for kind, image, target in pairs if kind == "picture"} == REPUBLISHED
    assert not any(kind == "file" for kind, _, _ in pairs)


@pytest.mark.parametrize("name", ["ccxs", "boxes"])
def test_a_known_index_is_built_without_opening_an_image(
    name: str, cache: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, index = request.getfixturevalue(name)
    settings = (
        CcxsSettings(root=DATA / "ccxs") if name == "ccxs" else CovidLungBoxesSettings(root=DATA / "gb-lung-boxes")
    )

    def refuse(path: Path) -> bytes:
        assert path.suffix not in SUFFIXES, f"{path} is opened"
        return read_bytes(path)

    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert vars(open_source(settings).index(cache)) == vars(index)


def test_only_the_fundus_photograph_in_both_parts_matches() -> None:
    masks = sorted((DATA / "idrid" / "A. Segmentation" / "1. Original Images").glob("*/IDRiD_0[5-9].jpg"))
    centres = sorted((DATA / "idrid" / "C. Localization" / "1. Original Images").glob("*/IDRiD_09?.jpg"))
    hashes = {path.stem: int(thumbnail(read(path, "image")), 16) for path in (*masks, *centres)}
    same = [
        (a.stem, b.stem)
        for a in masks
        for b in centres
        if (hashes[a.stem] ^ hashes[b.stem]).bit_count() <= MAX_HASH_DISTANCE
    ]
    assert (len(masks), same) == (5, [("IDRiD_09", "IDRiD_091")])
